"""What is drawn in the tab that follows poses: plain functions from data to HTML."""

import base64
from html import escape
from pathlib import Path

from pipelines.catalog import DETECTORS, motions
from pipelines.events import Progress
from pipelines.serving.backend import PosePreview
from pipelines.serving.job import Job
from ui import public
from ui.html import calm_picture, caption, first_frame, moving
from ui.languages import say
from ui.stream import describe


def motion_picture(motion: Path) -> tuple[str, str]:
    """Where a browser finds the built-in `motion`, moving and at rest."""
    picture = motion.with_suffix(".gif")
    return public.picture(picture), first_frame(picture.read_bytes())


def gallery() -> str:
    """A template of the built-in motions, for a gr.HTML whose value is the name of the one that is chosen."""
    pictures = {name: motion_picture(motion) for name, motion in motions().items()}
    cards = "".join(
        f'<button type="button" class="motion" data-motion="{escape(name)}" aria-pressed="${{value === \'{name}\'}}">'
        f"{calm_picture(moves, '', rests)}<span>{escape(name.capitalize())}</span></button>"
        for name, (moves, rests) in pictures.items()
    )
    return f'<div class="motions" role="group" aria-label="Built-in motions">{cards}</div>'


def pose_preview(found: PosePreview) -> str:
    """What the dancer will follow, moving, with the clip to its left where there is one, and what was found."""
    facts = found.facts
    shows = "The clip, and beside it the skeletons" if found.beside else "The skeletons"
    parts = [f"{facts['frames']} frames, {facts['frames'] / found.fps:.1f} s"]
    if "people" in facts:
        parts.append("one person" if facts["people"] == 1 else f"{facts['people']} people")
        parts.append(f"confidence {facts['confidence']:.2f}")
    parts.append(facts["origin"])
    return (
        f'<figure class="pose-preview"><div class="pose-screen">{moving(found.picture, f"{shows}, moving")}</div>'
        f"{_timeline(found)}"
        f"<figcaption>{escape(' · '.join(parts))}{_keypoints(found)}</figcaption></figure>{_note(facts)}"
    )


def _timeline(found: PosePreview) -> str:
    """A bar for every frame, as high as the detector was sure of it; a frame without anybody stands out. Where joints
    are known, a click on a bar goes to its frame, whose joints can be moved (assets/poses.js)."""
    values = found.facts.get("confidence_of_frames", [])
    sure = values if values and min(values) < 1 else []
    bars = "".join(
        f'<i style="height:{max(8, round(100 * value))}%"{"" if value else " class=nobody"} data-frame="{number}"></i>'
        for number, value in enumerate(sure)
    )
    if bars:
        bars = f'<div class="sureness" role="img" aria-label="How sure it is of every frame">{bars}</div>'
    if found.keypoints is None:
        return bars
    last = max(found.facts["frames"] - 1, 0)
    words = say("Frame %1 of %2 · %3 s|confidence %1|nobody is found here")
    return (
        f'<div class="timeline">{bars}<input type="range" data-part="frame" min="0" max="{last}" step="1" value="0" '
        f'aria-label="Frame" data-confidence="{" ".join(f"{value:.2f}" for value in sure)}" '
        f'data-fps="{found.fps:.6g}" data-words="{words}">'
        '<div data-part="acts" hidden><p data-part="where" role="status"></p>'
        '<p class="hint">Drag joints, or move them with the arrow keys. The frame becomes a key frame, and those up to '
        "the next one follow.</p>"
        '<button type="button" data-part="key" aria-pressed="false">Key frame</button>'
        '<button type="button" data-part="undo">Undo all moves</button>'
        '<button type="button" data-part="follow">Follow these</button>'
        '<button type="button" data-part="play">Play</button></div></div>'
    )


def _keypoints(found: PosePreview) -> str:
    if found.keypoints is None:
        return ""
    data = base64.b64encode(found.keypoints.encode()).decode()
    return f' · <a download="keypoints.json" href="data:application/json;base64,{data}">Keypoints (OpenPose JSON)</a>'


def _note(facts: dict) -> str:
    notes = [facts["note"]] if "note" in facts else []
    if "people" not in facts and (empty := facts["frames_without_anybody"]):
        notes.append(f"{len(empty)} of the {facts['frames']} frames are black: the video is free there.")
    return "".join(f'<p class="hint warning">{escape(note)}</p>' for note in notes)


def searching(progress: Progress) -> str:
    """While people are looked for: how far it is."""
    share = min(progress.step / progress.total, 1) if progress.total else 0
    return (
        f'<div class="searching" role="status"><progress max="1" value="{share:.3f}"></progress>'
        f"<p>{escape(describe(progress))}</p></div>"
    )


def forming(picture: bytes) -> str:
    """The video as it forms, beside what it follows."""
    data = base64.b64encode(picture).decode()
    return (
        f'<figure class="pose-preview"><div class="pose-screen"><img class="mist" alt="The video as it forms" '
        f'src="data:image/webp;base64,{data}"></div><figcaption>The video as it forms</figcaption></figure>'
    )


def detector(name: str) -> str:
    card = DETECTORS[name]
    return str(say('<p class="hint">{} Licence: {}.</p>', say(card.needs), say(card.licence)))


for _name in DETECTORS:  # so that a browser learns their words
    detector(_name)


def measures(job: Job) -> str:
    """What was made, and how well it follows."""
    facts, task = job.result.facts, job.task
    figures = []
    if "pose_accuracy" in facts:
        by = DETECTORS[facts["pose_accuracy_by"]].title if facts["pose_accuracy_by"] in DETECTORS else "the detector"
        how = f"of 100: average precision of the joints that {by} finds in it, against those it follows"
        figures.append(("Pose accuracy", f"{facts['pose_accuracy']:.0f}", how))
    if "frame_consistency" in facts:
        figures.append(("Frame consistency", f"{facts['frame_consistency']:.1f}", "of 100: CLIP, frame to frame"))
    elif "flicker" in facts:
        figures.append(
            ("Change from frame to frame", f"{100 * facts['flicker']:.1f}%", "of full scale, flicker included")
        )
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><small>{escape(how)}</small></div>"
        for name, value, how in figures
    )
    return f'{caption(task)}<dl class="measures">{rows}</dl>'
