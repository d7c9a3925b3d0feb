"""Tasks about poses: a video whose dancer follows them, and the search for them. Standard library only."""

from pipelines.cards import ModelCard, Range
from pipelines.catalog import motions
from pipelines.common_settings import DETECTOR, END, NO_CLIP, REFERENCE, SOUND, START, STRIDE, TUNED, takes
from pipelines.messages import said
from pipelines.model_tasks import Sampled, check_part
from pipelines.task_settings import Choice, Kept, Number, Truth, checked, declared, taskclass

SHOWN = {  # what a clip with poses is -> what a person reads
    "auto": "Detect it",
    "clip": "People",
    "skeleton": "Skeletons, drawn on black",
}
SMOOTHING = {"none": 0.0, "light": 0.05, "strong": 0.12}  # seconds: the standard deviation of a Gaussian in time
SMOOTHED = {"none": "Off", "light": "Light", "strong": "Strong"}  # what a person reads
PLACEMENTS = {  # how skeletons are laid on the canvas -> what a person reads
    "fit": "Show the whole picture",
    "fill": "Make the skeletons as large as possible",
    "crop": "Crop the centre, as FollowYourPose does",
}
SIDES = ("left", "right", "top", "bottom")
_NO_POSES = said("There are no poses to follow. Upload a clip, or choose one of the motions, but not both.")


def _cut(side: str) -> Number:
    return Number(
        label=f"Cut off {'at the ' if side in ('top', 'bottom') else ''}{side}",
        help="As a share of the width or height.",
        noun=f"crop at the {side}",
        default=0.0,
        within=Range(0, 0.9, 0),
        by=0.01,
    )


@taskclass
class PoseToVideo(Sampled):
    """A prompt to be made a video whose dancer follows the poses of a clip or of a built-in motion (FollowYourPose).

    `frames` are made at most: fewer where the clip has fewer.
    """

    FOR = "pose-to-video"
    clip: str = declared(  # the name under which the app keeps the clip, skeleton video or keypoints; or a motion
        Kept(label="Clip", help="A clip of people or skeletons.", noun="clip", missing=_NO_POSES)
    )
    motion: str = declared(
        Choice(
            label="Motion",
            help="A built-in motion, in place of a clip.",
            noun="motion",
            choices={name: name for name in motions()},
        )
    )
    shown: str = declared(
        Choice(
            label="What the clip shows",
            help="Whether people are looked for in it, or skeletons are read from it.",
            noun="kind of clip",
            default="auto",
            choices=SHOWN,
        )
    )
    detector: str = declared(DETECTOR)
    start: float = declared(START)  # seconds, of the clip or the motion
    end: float | None = declared(END)  # seconds; None for the end of the clip
    stride: int = declared(STRIDE)
    person: int | None = declared(
        Number(
            label="Who is followed",
            help="0 is the person most in view, 1 the next; by default all that the model can draw.",
            noun="number of the person",
            default=None,
            optional=True,
            within=Range(0, 999),
        )
    )
    gaps: bool = declared(
        Truth(
            label="Fill short gaps",
            help="A limb that is missed in a few frames stays on the dancer.",
            noun="gaps are filled",
            default=True,
            flag="--keep-gaps",
        )
    )
    smoothing: str = declared(
        Choice(
            label="Smoothing",
            help="Calms shaky limbs; too much dulls quick moves.",
            noun="smoothing",
            default="light",
            choices=SMOOTHED,
        )
    )
    placing: str = declared(
        Choice(
            label="Placement",
            help="How large the dancer is, and whether limbs may be cut off.",
            noun="placement",
            default="fit",
            choices=PLACEMENTS,
        )
    )
    retarget: bool = declared(  # False, too, for a model whose characters have no bodies of their own
        Truth(
            label="The character's own proportions",
            help="A bear keeps its short legs. Only for models with characters of their own.",
            noun="the character keeps its own proportions",
            default=True,
            flag="--clip-proportions",
        )
    )
    strength: float = declared(  # of the poses
        Number(
            label="Pose strength",
            help="How closely the skeletons are followed. 1 is as published, 0 ignores them.",
            noun="pose strength",
            default=1.0,
            within=Range(0, 1.5, 0),
            by=0.05,
            **takes("strength"),
        )
    )
    left: float = declared(_cut("left"))
    right: float = declared(_cut("right"))
    top: float = declared(_cut("top"))
    bottom: float = declared(_cut("bottom"))
    sound: bool = declared(SOUND)
    reference: str = declared(REFERENCE)
    tuned: str = declared(TUNED)  # the job that tuned on a clip whose dancer is to dance; "" for anybody

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        super()._check(card, values)
        if bool(values["clip"]) == bool(values["motion"]):
            raise ValueError(_NO_POSES)
        check_part(values)
        if max(values["left"] + values["right"], values["top"] + values["bottom"]) > 0.9:
            raise ValueError(said("The crop leaves less than a tenth of the picture. Cut off less."))
        values["retarget"] = values["retarget"] and bool(card.bodies)


@taskclass
class FindPoses:
    """A clip whose people are to be found, without anything being generated."""

    clip: str = declared(  # the name under which the app keeps it
        Kept(label="Clip", help="A clip of people or drawn figures.", noun="clip", missing=NO_CLIP, required=True)
    )
    detector: str = declared(DETECTOR)
    start: float = declared(START)  # seconds
    end: float | None = declared(END)  # seconds; None for the end of the clip
    stride: int = declared(STRIDE)

    @classmethod
    def of(cls, **settings: object) -> "FindPoses":
        """Raises ValueError as TextToVideo.for_model does."""
        values = checked(cls, None, settings)
        check_part(values)
        return cls(**values)
