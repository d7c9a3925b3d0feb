"""What is drawn in the tab that follows poses: plain functions from data to HTML."""

import base64
from html import escape
from pathlib import Path

from gradio.i18n import I18nData

from pipelines.catalog import motions
from pipelines.detectors import DETECTORS
from pipelines.events import Progress
from pipelines.serving.backend import PosePreview
from pipelines.serving.job import Job
from ui import public
from ui.html import calm_picture, caption, first_frame, moving
from ui.languages import say, tell
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
        f"{calm_picture(moves, '', rests)}<span>${{label.split('|')[{number}]}}</span></button>"
        for number, (name, (moves, rests)) in enumerate(pictures.items(), 1)
    )
    return f'<div class="motions" role="group" aria-label="${{label.split(\'|\')[0]}}">{cards}</div>'


def gallery_words() -> I18nData:
    """The label of the gallery: its own name, and those of the motions, with | between them."""
    words = [say("Built-in motions"), *(say(motion_title(name)) for name in motions())]
    return say("|".join("{}" for _ in words), *words)


def motion_title(name: str) -> str:
    """What a person reads for a built-in motion."""
    return name.capitalize()


def pose_preview(found: PosePreview) -> str:
    """What the dancer will follow, moving, with the clip to its left where there is one, and what was found."""
    facts = found.facts
    shows = tell("The clip, and beside it the skeletons, moving") if found.beside else tell("The skeletons, moving")
    parts = [tell("{frames} frames, {seconds:.1f} s", frames=facts["frames"], seconds=facts["frames"] / found.fps)]
    if "people" in facts:
        one = facts["people"] == 1
        parts.append(tell("one person") if one else tell("{count} people", count=facts["people"]))
        parts.append(tell("confidence {share:.2f}", share=facts["confidence"]))
    parts.append(tell(facts["origin"]))
    return (
        f'<figure class="pose-preview"><div class="pose-screen">{moving(found.picture, shows)}</div>'
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
        name = tell("How sure it is of every frame")
        bars = f'<div class="sureness" role="img" aria-label="{name}">{bars}</div>'
    if found.keypoints is None:
        return bars
    last = max(found.facts["frames"] - 1, 0)
    words = tell(  # those of assets/poses.js
        "nose|neck|right shoulder|right elbow|right wrist|left shoulder|left elbow|left wrist|right hip|right knee|"
        "right ankle|left hip|left knee|left ankle|right eye|left eye|right ear|left ear|Joints of this frame|"
        "%1 of person %2|%1, %2 across, %3 down. Arrow keys move it.|confidence %1|nobody is found here|"
        "Frame %1 of %2 · %3 s"
    )
    hint = tell(
        "Drag joints, or move them with the arrow keys. The frame becomes a key frame, and those up to the next one "
        "follow."
    )
    return (
        f'<div class="timeline" data-words="{escape(words)}">{bars}'
        f'<input type="range" data-part="frame" min="0" max="{last}" step="1" value="0" '
        f'aria-label="{tell("Frame")}" data-confidence="{" ".join(f"{value:.2f}" for value in sure)}" '
        f'data-fps="{found.fps:.6g}">'
        '<div data-part="acts" hidden><p data-part="where" role="status"></p>'
        f'<p class="hint">{hint}</p>'
        f'<button type="button" data-part="key" aria-pressed="false">{tell("Key frame")}</button>'
        f'<button type="button" data-part="undo">{tell("Undo all moves")}</button>'
        f'<button type="button" data-part="follow">{tell("Follow these")}</button>'
        f'<button type="button" data-part="play">{tell("Play")}</button></div></div>'
    )


def _keypoints(found: PosePreview) -> str:
    if found.keypoints is None:
        return ""
    data, name = base64.b64encode(found.keypoints.encode()).decode(), tell("Keypoints (OpenPose JSON)")
    return f' · <a download="keypoints.json" href="data:application/json;base64,{data}">{name}</a>'


def _note(facts: dict) -> str:
    notes = [tell(facts["note"])] if "note" in facts else []
    if "people" not in facts and (empty := facts["frames_without_anybody"]):
        count, frames = len(empty), facts["frames"]
        notes.append(
            tell("{count} of the {frames} frames are black: the video is free there.", count=count, frames=frames)
        )
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
    data, name = base64.b64encode(picture).decode(), tell("The video as it forms")
    return (
        f'<figure class="pose-preview"><div class="pose-screen"><img class="mist" alt="{name}" '
        f'src="data:image/webp;base64,{data}"></div><figcaption>{name}</figcaption></figure>'
    )


def detector(name: str) -> str:
    card = DETECTORS[name]
    return str(say('<p class="hint">{} Licence: {}.</p>', say(card.needs), say(card.licence)))


for _name in DETECTORS:  # so that a browser learns their words
    detector(_name)


def measures(job: Job) -> str:
    """What was made, and how well it follows."""
    facts = job.result.facts
    figures = []
    if "pose_accuracy" in facts:
        by = tell("the detector")
        if facts["pose_accuracy_by"] in DETECTORS:
            by = tell(DETECTORS[facts["pose_accuracy_by"]].title)
        how = tell("of 100: average precision of the joints that {by} finds in it, against those it follows", by=by)
        figures.append((tell("Pose accuracy"), f"{facts['pose_accuracy']:.0f}", how))
    if "frame_consistency" in facts:
        how = tell("of 100: CLIP, frame to frame")
        figures.append((tell("Frame consistency"), f"{facts['frame_consistency']:.1f}", how))
    elif "flicker" in facts:
        how = tell("of full scale, flicker included")
        figures.append((tell("Change from frame to frame"), f"{100 * facts['flicker']:.1f}%", how))
    if tempo := facts.get("sound_tempo"):
        figures.append((tell("Sound"), f"{tempo:.3g}×", tell("times as fast as in the clip, as the video is")))
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><small>{escape(how)}</small></div>"
        for name, value, how in figures
    )
    return f'{caption(job.made)}<dl class="measures">{rows}</dl>'
