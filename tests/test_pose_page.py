"""The tab that follows poses, without a browser: every control reaches the task, and comes back from it."""

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import tiny

from pipelines.catalog import CATALOG, find, find_motion
from pipelines.events import Progress, Result
from pipelines.media import video
from pipelines.media.measuring import Clip
from pipelines.models.manager import ModelManager
from pipelines.poses import openpose_json, pose_sequence
from pipelines.poses.keypoints import Poses
from pipelines.serving.backend import PosePreview
from pipelines.serving.job import Job
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo, Tune, to_json
from ui import forms, page, pose_controls, pose_html
from ui.languages import LANGUAGE

ME, OTHERS = "1" * 32, "2" * 32
OTHER = {  # what a person may set -> the control, what it is set to, what the task then says
    "prompt": ("pose-prompt", "a bear on the moon", "a bear on the moon"),
    "motion": ("motions", "kick", "kick"),
    "negative_prompt": ("pose-negative-prompt", "rain", "rain"),
    "shown": ("pose-shown", "skeleton", "skeleton"),
    "detector": ("pose-detector", "openpose", "openpose"),
    "start": ("pose-start", 0.5, 0.5),
    "end": ("pose-end", 1.5, 1.5),
    "stride": ("pose-stride", 2, 2),
    "left": ("pose-left", 0.1, 0.1),
    "right": ("pose-right", 0.2, 0.2),
    "top": ("pose-top", 0.3, 0.3),
    "bottom": ("pose-bottom", 0.4, 0.4),
    "person": ("pose-person", 0, 0),
    "gaps": ("pose-gaps", False, False),
    "smoothing": ("pose-smoothing", "strong", "strong"),
    "placing": ("pose-placing", "fill", "fill"),
    "retarget": ("pose-retarget", False, False),
    "precision": ("pose-precision", "fast", "fast"),
    "caching": ("pose-caching", 2, 2),
    "guided_from": ("pose-guided-from", 0.2, 0.2),
    "guided_until": ("pose-guided-until", 0.8, 0.8),
    "strength": ("pose-strength", 0.5, 0.5),
    "tuned": ("pose-tuned", "e" * 32, "e" * 32),
    "frames": ("pose-frames", 24, 24),
    "fps": ("pose-fps", 7.4925, 7.4925),
    "steps": ("pose-steps", 10, 10),
    "guidance": ("pose-guidance", 1.5, 1.5),
    "scheduler": ("pose-scheduler", "dpm++", "dpm++"),
    "seed": ("pose-seed", 9, 9),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    settings = Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    yield page.build(backend, settings), backend
    backend.close()


def event(demo, name, trigger=None):
    for one in demo.fns.values():
        targets = [demo.blocks[block].elem_id for block, _ in one.targets if block in demo.blocks]
        if getattr(one.fn, "__name__", "") == name and (trigger is None or trigger in targets):
            return one
    raise AssertionError(f"nothing calls {name}")


def press(built, clip="", **changed):
    """The tasks that Generate makes of the controls as they are at first, but for what is `changed`, by control."""
    demo, backend = built
    run = event(demo, "press", "pose-generate")
    changed = {"pose-randomise": False, "motions": "dance, hands up"} | changed
    values = {one: changed.get(one.elem_id, getattr(one, "value", None)) for one in run.inputs}
    assert changed.keys() <= {one.elem_id for one in run.inputs}
    (owner,) = [one for one in values if isinstance(one, gr.BrowserState)]
    empty = [one for one in values if isinstance(one, gr.State) and one.value == "" and one not in run.outputs]
    upload = min(empty, key=lambda one: one._id)  # the other is the reference image
    asked = []

    def submit(task, owner, address=""):
        """Takes every task, and makes nothing of it."""
        asked.append(task)
        raise ValueError("Enough.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.jobs, "submit", submit)
        updates = run.fn(values | {owner: ME, upload: clip})
    return asked, updates


def test_a_first_visit_needs_one_click(built):
    (task,), _ = press(built)
    assert task.motion and task.prompt and task.model == "miniature-followyourpose" and task.person is None


@pytest.mark.parametrize("name", OTHER)
def test_every_control_reaches_the_task_and_changes_only_its_own_part(built, name):
    control, value, says = OTHER[name]
    (before,), _ = press(built)
    (after,), _ = press(built, **{control: value})
    assert getattr(before, name) != says == getattr(after, name)
    assert [part for part in asdict(before) if getattr(before, part) != getattr(after, part)] == [name]


def test_model_size_clip_and_sound_reach_it_too(built):
    sizes = {"pose-model": "followyourpose-v1", "pose-width": 512, "pose-height": 576}
    (task,), _ = press(built, **sizes)
    assert (task.model, task.width, task.height) == ("followyourpose-v1", 512, 576)
    fast = {**sizes, "pose-lora": "lcm", "pose-scheduler": "lcm", "pose-steps": 4, "pose-guidance": 1}
    (task,), _ = press(built, **fast)
    assert (task.lora, task.scheduler, task.steps) == ("lcm", "lcm", 4)
    (task,), _ = press(built, clip="f" * 32, motions="", **{"pose-sound": True})
    assert (task.clip, task.motion, task.sound) == ("f" * 32, "", True)
    assert set(OTHER) | {"model", "width", "height", "clip", "sound", "lora", "reference"} == set(asdict(task))


def test_a_very_fast_clip_keeps_to_the_frames_a_second_that_are_made():
    fast = Clip(64, 64, 240.0, 1.0, 240, "H.264", "MP4 or MOV", True, False)
    assert [pose_controls.pace(fast, stride) for stride in (None, 1, 8)] == [8, 60, 30]


def test_several_lines_are_several_videos_of_one_seed_and_the_dice_rolls_it(built):
    values = asdict(press(built)[0][0]) | {"prompt": "a bear\n\n a robot ", "motion": "wave", "seed": None}
    tasks = forms.poses_to_videos(values, randomise=True)
    assert [task.prompt for task in tasks] == ["a bear", "a robot"] and len({task.seed for task in tasks}) == 1
    assert forms.poses_to_videos(values, randomise=True)[0].seed != tasks[0].seed
    with pytest.raises(ValueError, match="prompt is empty"):
        forms.poses_to_videos(values | {"prompt": " \n", "seed": 1})


@pytest.mark.parametrize(("control", "value"), [("pose-fps", None), ("pose-end", -1), ("pose-person", "me")])
def test_what_can_not_be_is_answered_on_the_page(built, control, value):
    tasks, updates = press(built, **{control: value})
    assert tasks == [] and any(
        "message failed" in str(update.value) for update in updates.values() if isinstance(update, gr.HTML)
    )


def test_every_choice_of_what_is_followed_draws_the_skeletons_anew(built):
    demo, _ = built
    looks = [one for one in demo.fns.values() if getattr(one.fn, "__name__", "") == "look"]
    targets = {demo.blocks[block].elem_id for one in looks for block, _ in one.targets if block in demo.blocks}
    drawn = {OTHER[name][0] for name in forms.POSES if name not in ("strength", "sound", "tuned")} | {"pose-frames"}
    assert drawn | {"pose-width", "pose-height"} <= targets


def test_the_settings_of_a_video_come_back_to_every_control(built, tmp_path):
    demo, backend = built
    kept = backend.assets.keep_clip(
        shutil.copyfile(find_motion("duet"), tmp_path / "duet.json"), backend.owners.of(ME), poses=True
    )
    card = find("miniature-followyourpose")
    changed = {name: says for name, (_, _, says) in OTHER.items() if name not in ("prompt", "seed", "motion")}
    task = PoseToVideo.for_model(card, "a bear\ton ice", 9, clip=kept.name, **changed)
    video.write(
        np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8), tmp_path / "a.mp4", 8, to_json(task)
    )
    filled = event(demo, "restore").fn(ME, str(tmp_path / "a.mp4"))
    assert next(update.selected for update in filled.values() if isinstance(update, gr.Tabs)) == "pose-to-video"
    (wanted,) = [value for one, value in filled.items() if isinstance(one, gr.State)]
    updates = event(demo, "refill").fn(ME, wanted)
    values = {one.elem_id: getattr(update, "value", update) for one, update in updates.items() if one.elem_id}
    pressed = event(demo, "press", "pose-generate")
    told = {one.elem_id: values[one.elem_id] for one in pressed.inputs if one.elem_id in values}
    (again,), _ = press(built, clip=kept.name, **told)
    assert again == replace(task, end=min(task.end, kept.clip.seconds), tuned="")
    assert "Whose looks it had is gone" in str([getattr(update, "value", "") for update in updates.values()])
    gone = event(demo, "refill").fn(OTHERS, wanted)
    assert "is gone" in str([update.value for update in gone.values()])


def test_who_was_tuned_on_can_be_chosen_for_the_models_that_it_fits(built, tmp_path):
    demo, backend = built
    video.write(np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3), np.uint8), tmp_path / "clip.mp4", 8)
    me = backend.owners.of(ME)
    clip = backend.assets.keep_clip(tmp_path / "clip.mp4", me).name
    tune = Tune.for_model(find("miniature-sd"), "a bear in red", 1, clip=clip, frames=2, steps=1)
    job = backend.jobs.submit(tune, me)
    assert isinstance(list(backend.jobs.events(job, me))[-1], Result)
    dress = event(demo, "dress").fn
    offered = dress(ME, "miniature-followyourpose", "")
    assert offered.visible and offered.value == "" and offered.choices[1] == ("a bear in red", job)
    built_in = [one.job.id for one in backend.tunings.built_in()]
    assert [name for _, name in offered.choices[2:]] == built_in  # which everybody may choose, and no more
    assert not dress(OTHERS, "miniature-followyourpose", "").visible  # where there is nothing else, it takes no room
    worn = dress(OTHERS, "miniature-followyourpose", built_in[0])
    assert worn.visible and [name for _, name in worn.choices[1:]] == built_in
    assert dress(ME, "miniature-followyourpose", job).value == job
    assert not dress(ME, "followyourpose-v1", job).visible
    task = PoseToVideo.for_model(find("miniature-followyourpose"), "a bear", 9, motion="wave", tuned=job)
    updates = {one.elem_id: update for one, update in event(demo, "refill").fn(ME, (asdict(task), 0)).items()}
    assert updates["pose-tuned"].value == job and not updates["pose-problem"].visible


def edit(built, path, **before):
    """Follows the edited skeletons in the file; returns what every control then holds, by its elem_id, and the clip."""
    demo, _ = built
    take = event(demo, "take_edits")
    values = {one: before.get(one.elem_id, getattr(one, "value", None)) for one in take.inputs}
    (owner,) = [one for one in values if isinstance(one, gr.BrowserState)]
    (edited,) = [one for one in values if one.elem_id == "pose-edited"]
    updates = take.fn(values | {owner: ME, edited: str(path)})
    states = [value for one, value in updates.items() if isinstance(one, gr.State)]
    held = {one.elem_id: getattr(update, "value", update) for one, update in updates.items() if one.elem_id}
    return updates, held, [state for state in states if isinstance(state, str) and state]


def test_edited_skeletons_are_followed_exactly_and_undone_by_one_button(built, tmp_path):
    demo, backend = built
    frames = json.loads(find_motion("wave").read_text())
    for frame in frames[:8]:
        frame["people"][0]["pose_keypoints_2d"][12:14] = [64, 400]  # the right wrist
    for frame in frames:
        frame["fps"] = 24
    (tmp_path / "edited.json").write_text(json.dumps(frames))
    before = {"motions": "kick", "pose-smoothing": "strong", "pose-placing": "fill"}
    updates, held, (clip, *_) = edit(built, tmp_path / "edited.json", **before)
    pressed = event(demo, "press", "pose-generate")
    told = {one.elem_id: held[one.elem_id] for one in pressed.inputs if one.elem_id in held}
    (task,), _ = press(built, clip=clip, **told | {"pose-frames": 8})
    kept = backend.assets.clip(clip, backend.owners.of(ME))
    _, sequence = tiny.finish(pose_sequence.skeletons(task, ModelManager(CATALOG, Settings(), "cpu"), kept.file))
    wrists = sequence.poses.joints[:, 0, 4, :2]
    assert wrists.shape == (8, 2) and np.allclose(wrists * 512 / task.width, (64, 400), atol=2)

    assert held["pose-fps"] == 24
    forget = event(demo, "forget_edits")
    (state,) = [one for one in forget.inputs if isinstance(one, gr.State)]
    controls = {one: getattr(one, "value", None) for one in forget.inputs} | {state: updates[state]}
    (wanted,) = [value for one, value in forget.fn(controls).items() if isinstance(one, gr.State)]
    again = event(demo, "refill").fn(ME, wanted)
    values = {one.elem_id: getattr(update, "value", update) for one, update in again.items() if one.elem_id}
    assert {name: values[name] for name in before} == before
    assert again[state] is None


def test_no_skeletons_stand_beside_a_clip_that_they_are_not_of(built, tmp_path):
    """Neither while they are looked for, nor after the search was stopped or has failed."""
    demo, backend = built

    def figure(updates):
        return next((value for one, value in updates.items() if one.elem_id == "found"), None)

    def looked(**changed):
        look = event(demo, "look", "pose-start")
        values = {one: changed.get(one.elem_id, getattr(one, "value", None)) for one in look.inputs}
        (owner,) = [one for one in values if isinstance(one, gr.BrowserState)]
        return [figure(update) for update in look.fn(values | {owner: ME})]

    assert "data:image" in looked()[-1]
    assert looked(**{"pose-start": 99})[-1] == ""
    quits = event(demo, "quit_looking")
    assert figure(quits.fn(ME)) == "" and {one.elem_id for one in quits.outputs} >= {"found"}
    take = event(demo, "take", "pose-clip")
    assert figure(take.fn(ME, shutil.copyfile(find_motion("wave"), tmp_path / "wave.json"))) == ""
    assert {one.elem_id for one in take.outputs} >= {"found"}


@pytest.mark.parametrize("wrong", ["not json", '[{"people": [[1, 2, 3]]}]', '[{"people": []}]'])
def test_edits_that_are_no_skeletons_are_answered(built, tmp_path, wrong):
    (tmp_path / "edited.json").write_text(wrong)
    _, held, clips = edit(built, tmp_path / "edited.json")
    assert not clips and "This can't be followed" in held["pose-problem"]


def test_frames_can_be_gone_through_where_joints_are_known():
    facts = {"frames": 2, "origin": "keypoints", "confidence_of_frames": [0.9, 0.0], "frames_without_anybody": [1]}
    picture = video.animation(np.zeros((2, 8, 8, 3), np.uint8), 8)
    html = pose_html.pose_preview(PosePreview(picture, True, facts, 8.0, '[{"people": []}]'))
    assert 'type="range"' in html and 'max="1"' in html and 'class=nobody data-frame="1"' in html
    assert 'data-fps="8"' in html and "Frame %1 of %2 · %3 s" in html and "__i18n__" not in html
    assert 'type="range"' not in pose_html.pose_preview(PosePreview(picture, True, facts, 8.0, None))


def test_what_was_found_is_told():
    facts = {"frames": 8, "fps": 8, "people": 2, "confidence": 0.5, "origin": "people <found>"}
    facts |= {"confidence_of_frames": [0.9, 0.0], "frames_without_anybody": [1], "note": "Nobody <here>."}
    picture = video.animation(np.zeros((2, 8, 8, 3), np.uint8), 8)
    html = pose_html.pose_preview(PosePreview(picture, True, facts, 8.0, '[{"people": []}]'))
    for part in (
        "8 frames, 1.0 s",
        "2 people",
        "confidence 0.50",
        "people &lt;found&gt;",
        "class=nobody",
        "&lt;here&gt;",
    ):
        assert part in html
    assert 'download="keypoints.json"' in html and "<found>" not in html
    assert "frame 3 of 8" in pose_html.searching(Progress("Finding people", 3, 8))


def test_notes_on_a_search_are_told_in_the_visitors_language():
    joints = openpose_json.read(find_motion("wave")).joints[:4].copy()
    joints[1:3] = 0
    settings = {"clip": "0" * 32, "frames": 8, "fps": 8}
    task = PoseToVideo.for_model(find("miniature-followyourpose"), "a bear", 1, **settings)
    found, picture = _found(task, joints), video.animation(np.zeros((2, 8, 8, 3), np.uint8), 8)
    token = LANGUAGE.set("es")
    try:
        html = pose_html.pose_preview(PosePreview(picture, False, found, 8.0, None))
    finally:
        LANGUAGE.reset(token)
    assert "La parte elegida tiene 4 fotogramas y no 8" in html and "de los 4 fotogramas: 2–3." in html


def _found(task, joints):
    """What is told of skeletons in a file."""
    with tempfile.TemporaryDirectory() as folder:
        openpose_json.write(Poses(joints, 256, 256, 8.0), Path(folder) / "poses.json")
        models = ModelManager(CATALOG, Settings(data=Path(folder), cache=Path(folder), device="cpu", hub=False))
        return tiny.finish(pose_sequence.skeletons(task, models, Path(folder) / "poses.json"))[1].facts["poses"]


def test_the_figures_stand_beside_the_result(tmp_path):
    task = PoseToVideo.for_model(find("miniature-followyourpose"), "a bear", 9, motion="wave")
    facts = {"pose_accuracy": 83.4, "pose_accuracy_by": "miniature-openpose", "flicker": 0.021}
    html = pose_html.measures(Job("1", ME, task, end=Result(tmp_path, facts)))
    assert "83" in html and "average precision" in html and "2.1%" in html and "seed 9" in html
    assert "Sound" not in html
    html = pose_html.measures(Job("1", ME, task, end=Result(tmp_path, facts | {"sound_tempo": 0.25})))
    assert "Sound" in html and "0.25×" in html
    html = pose_html.measures(Job("1", ME, task, end=Result(tmp_path, facts | {"frame_consistency": 97.31})))
    assert "97.3" in html and "2.1%" not in html
    json.dumps(facts)
