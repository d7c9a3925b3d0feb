"""Settings that several kinds of task have, each declared once. Standard library only."""

from typing import Any

from pipelines.cards import ModelCard, Range
from pipelines.catalog import CAPABILITIES, CATALOG, SCHEDULERS, tuned_models
from pipelines.detectors import DETECTORS
from pipelines.messages import said
from pipelines.task_settings import Choice, Kept, Number, Text, Truth

MAX_SEED = 2**32 - 1
PRECISIONS = {  # what the network computes in -> what a person reads
    "exact": "Exact",
    "fast": "Fast, where this machine is quicker with it",
}
SECONDS = Range(0, 86_400, 0)
SHARE = Range(0, 1, 0)
PACE = Range(0.001, 1010, 0)  # frames a second of clips, as media/measuring.py takes them
NO_CLIP = said("There is no clip. Upload one first.")
NO_IMAGE = said("There is no such image. Upload it first.")


def takes(capability: str, of: str = "") -> dict[str, Any]:
    """What makes a setting count only with models that take `capability`, a key of CAPABILITIES; where that is a part
    `of` another one, it is the other one that a model without both is said to lack."""

    def needs(card: ModelCard) -> str:
        return CAPABILITIES[of if of and of not in card.takes else capability]

    return {"needs": needs, "taken": lambda card: capability in card.takes}


PROMPT = Text(
    label="Prompt",
    help="What the video should show, in English.",
    noun="prompt",
    empty=said("The prompt is empty. Say what the video should show."),
)
NEGATIVE_PROMPT = Text(
    label="Leave out",
    help="What the video should not show.",
    noun="negative prompt",
    default=lambda card: card.defaults.negative_prompt,
    flag="--negative",
)
FRAMES = Number(
    label="Frames",
    help="More frames make a longer video and take longer.",
    noun="number of frames",
    default=lambda card: card.defaults.frames,
    within=lambda card: card.limits.frames,
)
WIDTH, HEIGHT = (
    Number(
        label=side.title(),
        help="In pixels.",
        noun=side,
        unit="px",
        typed=True,
        default=lambda card, side=side: getattr(card.defaults, side),
        within=lambda card: card.limits.side,
    )
    for side in ("width", "height")
)
FPS = Number(
    label="Frames a second",
    help="How fast the video plays.",
    noun="frame rate",
    default=lambda card: card.defaults.fps,
    within=lambda card: card.limits.fps,
)
STEPS = Number(
    label="Steps",
    help="More denoising steps take longer and look cleaner.",
    noun="number of steps",
    default=lambda card: card.defaults.steps,
    within=lambda card: card.limits.steps,
)
GUIDANCE = Number(
    label="Guidance",
    help="How closely the video follows your words; 1 or less turns guidance off.",
    noun="guidance",
    default=lambda card: card.defaults.guidance,
    within=lambda card: card.limits.guidance,
    by=0.5,
)
SCHEDULER = Choice(
    label="Sampler",
    help="How noise becomes a picture, step by step.",
    noun="scheduler",
    default=lambda card: card.defaults.scheduler,
    choices=SCHEDULERS,
    offered=lambda card: card.schedulers,
)
SEED = Number(
    label="Seed",
    help="The same seed and settings make the same video.",
    noun="seed",
    default=None,
    within=Range(0, MAX_SEED),
    typed=True,
)
# What saves time and changes the video; all of it is off by default.
LORA = Choice(
    label="Speed",
    help="A LoRA trained for few steps. The first video downloads it.",
    noun="LoRA",
    default="",
    nothing="As published",
    choices={name: lora.title for card in CATALOG.values() for name, lora in card.loras.items()},
    offered=lambda card: tuple(card.loras),
    needs="LoRA",
    taken=lambda card: bool(card.loras),
)
PRECISION = Choice(
    label="Precision",
    help="Fast computes the network in bfloat16.",
    noun="precision",
    default="exact",
    choices=PRECISIONS,
    **takes("precision"),
)
CACHING = Number(
    label="Steps that share deep features",
    help="1 computes them in every step, 2 in every second.",
    noun="number of steps that share deep features",
    default=1,
    within=Range(1, 10),
    **takes("caching"),
)
GUIDED_FROM, GUIDED_UNTIL = (
    Number(
        label=f"Guidance {verb}",
        help="0 is pure noise, 1 the finished video.",
        noun=f"place at which guidance {verb}",
        default=default,
        within=SHARE,
        by=0.05,
        **takes("guided_from"),
    )
    for verb, default in (("begins", 0.0), ("ends", 1.0))
)
START = Number(
    label="From",
    help="Where the part of the clip that is used begins, in seconds.",
    noun="start",
    unit="s",
    default=0.0,
    within=SECONDS,
)
END = Number(
    label="To",
    help="Where that part ends, in seconds.",
    noun="end",
    unit="s",
    default=None,
    optional=True,
    within=SECONDS,
)
STRIDE = Number(
    label="Every n-th frame",
    help="Larger steps cover more of the clip in as many frames.",
    noun="stride",
    default=1,
    within=Range(1, 1000),
)
REFERENCE = Kept(  # the name under which the app keeps it; see images.py
    label="Reference image",
    help="Who or what is in it appears in the video. Best on a plain, white ground.",
    noun="reference image",
    missing=NO_IMAGE,
    **takes("reference"),
)
SOUND = Truth(
    label="Keep the clip's sound",
    help="The video gets the sound of the clip.",
    noun="the sound is kept",
    default=False,
    **takes("sound"),
)
DETECTOR = Choice(
    label="Detector",
    help="Finds people in the clip, and in the result to measure it.",
    noun="detector",
    default=next(iter(DETECTORS)),
    choices={name: detector.title for name, detector in DETECTORS.items()},
)
TUNED = Kept(
    label="Tuned model",
    help="Who is in the clip that it was tuned on then dances.",
    noun="tuned model",
    missing=said("There is no such tuned model. Tune on a clip first, then choose it."),
    needs="tuned model",
    taken=lambda card: bool(card.tuned_from or card.tuning),
    built_in=tuned_models,
)
