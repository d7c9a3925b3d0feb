"""Writes the library of motions, assets/motions: `python -m scripts.motions`.

A JSON file with the keypoints of each, and a GIF that shows it, in FollowYourPose's colours.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.catalog import MOTIONS
from pipelines.poses import openpose_json, skeleton
from pipelines.poses.keypoints import Poses, place
from scripts.miniature import motion
from scripts.miniature.figures import BUILDS
from scripts.miniature.motion import L_EAR, MIRROR, R_EAR
from scripts.miniature.world import FPS

SIZE, FLOOR = 512, 465  # pixels of the picture, and where the floor is
THUMBNAIL = 112  # pixels


@dataclass(frozen=True)
class Motion:
    action: str
    seed: int  # of its style, tempo and reach
    seconds: float
    mirrored: bool = False
    on_the_spot: bool = False
    period: float | None = None  # seconds after which it begins again, where it would end
    place: float = 0.5  # of the origin, in widths
    height: int = 330  # pixels


LIBRARY: dict[str, tuple[Motion, ...]] = {
    "bow": (Motion("bowing", 2, 4.0, period=2.0),),
    "bow to the left": (Motion("bowing", 5, 4.0, mirrored=True, period=2.0),),
    "dance, arms in turn": (Motion("dancing", 11, 4.0),),
    "dance, hands up": (Motion("dancing", 1, 4.0),),
    "dance, swinging": (Motion("dancing", 4, 4.0),),
    "duet": (
        Motion("dancing", 14, 4.0, place=0.28, height=250),
        Motion("dancing", 14, 4.0, mirrored=True, place=0.72, height=250),
    ),
    "jump": (Motion("jumping", 0, 4.0),),
    "jump high": (Motion("jumping", 6, 4.0, height=290),),
    "kick": (Motion("kicking", 1, 4.0),),
    "kick to the left": (Motion("kicking", 4, 4.0, mirrored=True),),
    "march on the spot": (Motion("walking", 2, 4.0, on_the_spot=True),),
    "walk across": (Motion("walking", 0, 2.25, height=280),),
    "walk back": (Motion("walking", 3, 2.25, mirrored=True, height=280),),
    "wave": (Motion("waving", 0, 4.0),),
    "wave with the other hand": (Motion("waving", 2, 4.0, mirrored=True),),
}


def perform(plan: Motion) -> np.ndarray:
    """The joints [F, 18, 3] in pixels."""
    build, seconds = BUILDS["person"], np.arange(round(plan.seconds * FPS)) / FPS
    moments = seconds % plan.period if plan.period else seconds
    poses, _ = motion.perform(plan.action, build, np.random.default_rng(plan.seed), moments)
    joints = np.stack([motion.skeleton(pose, build) for pose in poses])  # (F, 18, 2), body heights
    turns = np.array([pose.turn for pose in poses])
    if plan.on_the_spot:
        joints[..., 0] -= np.array([pose.hip[0] for pose in poses])[:, None]
    if plan.mirrored:
        joints, turns = joints[:, MIRROR] * (-1, 1), -turns
    found = np.ones((len(joints), 18, 3), np.float32)
    found[..., :2] = joints * plan.height + (plan.place * SIZE, FLOOR)
    found[turns > 0.5, L_EAR] = 0  # the ear on the far side is hidden
    found[turns < -0.5, R_EAR] = 0
    return found


def thumbnail(poses: Poses) -> list[Image.Image]:
    """Drawn large and averaged down, so that thin lines stay smooth; few colours, so that the file stays small."""
    large = skeleton.draw(place(poses, 4 * THUMBNAIL, 4 * THUMBNAIL, "crop"))
    small = [Image.fromarray(frame).resize((THUMBNAIL,) * 2, Image.Resampling.BOX) for frame in large]
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in small])).quantize(32)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]


def main() -> None:
    MOTIONS.mkdir(parents=True, exist_ok=True)
    for name, plans in LIBRARY.items():
        poses = Poses(np.stack([perform(plan) for plan in plans], axis=1), SIZE, SIZE, float(FPS))
        file = MOTIONS / f"{name}.json"
        openpose_json.write(poses, file)
        first, *others = thumbnail(poses)
        shown = file.with_suffix(".gif")
        first.save(shown, save_all=True, append_images=others, duration=1000 // FPS, loop=0, optimize=False)
        sizes = " and ".join(f"{each.stat().st_size // 1000} KB" for each in (file, shown))
        print(f"{name}: {len(poses.joints)} frames, {sizes}")


if __name__ == "__main__":
    main()
