"""Writes the library of motions, assets/motions: `python -m scripts.motions`.

A JSON file with the keypoints of each, and a GIF that shows them, in FollowYourPose's colours, beside a dancer.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.catalog import MOTIONS
from pipelines.poses import openpose_json, skeleton
from pipelines.poses.keypoints import Poses, place
from scripts.miniature import motion
from scripts.miniature.figures import BUILDS, Look, draw_figure
from scripts.miniature.motion import L_EAR, MIRROR, R_EAR
from scripts.miniature.world import COLOURS, FPS

SIZE, FLOOR = 512, 465  # pixels of the picture, and where the floor is
THUMBNAIL = 96  # pixels of its height; it is twice as wide
BACKDROP = (58, 42, 66)


@dataclass(frozen=True)
class Motion:
    dancer: str  # of the picture
    colour: str
    action: str
    seed: int  # of its style, tempo and reach
    seconds: float
    mirrored: bool = False
    on_the_spot: bool = False
    period: float | None = None  # seconds after which it begins again, where it would end
    place: float = 0.5  # of the origin, in widths
    height: int = 330  # pixels


LIBRARY: dict[str, tuple[Motion, ...]] = {
    "bow": (Motion("person", "red", "bowing", 2, 4.0, period=2.0),),
    "bow to the left": (Motion("robot", "blue", "bowing", 5, 4.0, mirrored=True, period=2.0),),
    "dance, arms in turn": (Motion("bear", "green", "dancing", 11, 4.0),),
    "dance, hands up": (Motion("astronaut", "orange", "dancing", 1, 4.0),),
    "dance, swinging": (Motion("person", "yellow", "dancing", 4, 4.0),),
    "duet": (
        Motion("robot", "blue", "dancing", 14, 4.0, place=0.28, height=250),
        Motion("bear", "green", "dancing", 14, 4.0, mirrored=True, place=0.72, height=250),
    ),
    "jump": (Motion("person", "pink", "jumping", 0, 4.0),),
    "jump high": (Motion("robot", "red", "jumping", 6, 4.0, height=290),),
    "kick": (Motion("robot", "green", "kicking", 1, 4.0),),
    "kick to the left": (Motion("astronaut", "blue", "kicking", 4, 4.0, mirrored=True),),
    "march on the spot": (Motion("bear", "purple", "walking", 2, 4.0, on_the_spot=True),),
    "walk across": (Motion("person", "blue", "walking", 0, 2.25, height=280),),
    "walk back": (Motion("astronaut", "orange", "walking", 3, 2.25, mirrored=True, height=280),),
    "wave": (Motion("bear", "pink", "waving", 0, 4.0),),
    "wave with the other hand": (Motion("robot", "yellow", "waving", 2, 4.0, mirrored=True),),
}


def joints_and_turns(plan: Motion, character: str) -> tuple[np.ndarray, np.ndarray]:
    """The joints [F, 18, 2] of a character in pixels, and how far it looks aside [F]."""
    build, seconds = BUILDS[character], np.arange(round(plan.seconds * FPS)) / FPS
    moments = seconds % plan.period if plan.period else seconds
    poses, _ = motion.perform(plan.action, build, np.random.default_rng(plan.seed), moments)
    joints = np.stack([motion.skeleton(pose, build) for pose in poses])  # (F, 18, 2), body heights
    turns = np.array([pose.turn for pose in poses])
    if plan.on_the_spot:
        joints[..., 0] -= np.array([pose.hip[0] for pose in poses])[:, None]
    if plan.mirrored:
        joints, turns = joints[:, MIRROR] * (-1, 1), -turns
    return joints * plan.height + (plan.place * SIZE, FLOOR), turns


def perform(plan: Motion) -> np.ndarray:
    """The joints [F, 18, 3] in pixels."""
    joints, turns = joints_and_turns(plan, "person")
    found = np.ones((len(joints), 18, 3), np.float32)
    found[..., :2] = joints
    found[turns > 0.5, L_EAR] = 0  # the ear on the far side is hidden
    found[turns < -0.5, R_EAR] = 0
    return found


def dancers(plans: tuple[Motion, ...]) -> np.ndarray:
    """Who dances a motion, on one plain colour: frames [F, THUMBNAIL, THUMBNAIL, 3]."""
    frames = None
    share = THUMBNAIL / SIZE
    frames = np.full((round(plans[0].seconds * FPS), THUMBNAIL, THUMBNAIL, 3), BACKDROP, np.float32)
    for plan in plans:
        look = Look.sample(plan.dancer, COLOURS[plan.colour], np.random.default_rng(plan.seed))
        joints, turns = joints_and_turns(plan, plan.dancer)
        for at, (joint, turn) in enumerate(zip(joints * share, turns, strict=True)):
            doll = draw_figure(look, joint, plan.height * share, turn, FLOOR * share, THUMBNAIL).astype(np.float32)
            frames[at] = frames[at] * (1 - doll[..., 3:] / 255) + doll[..., :3]
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def thumbnail(poses: Poses, beside: np.ndarray) -> list[Image.Image]:
    """Drawn large and averaged down, so that thin lines stay smooth; few colours, so that the file stays small."""
    large = skeleton.draw(place(poses, 4 * THUMBNAIL, 4 * THUMBNAIL, "crop"))
    small = [np.asarray(Image.fromarray(frame).resize((THUMBNAIL,) * 2, Image.Resampling.BOX)) for frame in large]
    both = [Image.fromarray(np.concatenate(halves, axis=1)) for halves in zip(small, beside, strict=True)]
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in both])).quantize(40)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in both]


def main() -> None:
    MOTIONS.mkdir(parents=True, exist_ok=True)
    for name, plans in LIBRARY.items():
        poses = Poses(np.stack([perform(plan) for plan in plans], axis=1), SIZE, SIZE, float(FPS))
        file = MOTIONS / f"{name}.json"
        openpose_json.write(poses, file)
        first, *others = thumbnail(poses, dancers(plans))
        shown = file.with_suffix(".gif")
        first.save(shown, save_all=True, append_images=others, duration=1000 // FPS, loop=0, optimize=False)
        sizes = " and ".join(f"{each.stat().st_size // 1000} KB" for each in (file, shown))
        print(f"{name}: {len(poses.joints)} frames, {sizes}")


if __name__ == "__main__":
    main()
