"""The catalog: one table of every model the app offers, as long as there are models. Standard library only."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipelines.cards import Body, Defaults, Limits, Lora, ModelCard, Range, Source, TuningDefaults
from pipelines.messages import Message, said

ASSETS = Path(__file__).resolve().parent.parent / "assets"
MINIATURES = ASSETS / "miniature"
MOTIONS = ASSETS / "motions"
TUNED = ASSETS / "tuned"

Thing = TypeVar("Thing")


ENGINES = {  # name -> the module whose ENGINE it is (systems/engine.py); imported, and torch with it, by the first job
    "modelscope": "pipelines.systems.modelscope",
    "tempofunk": "pipelines.systems.tempofunk",
    "followyourpose": "pipelines.systems.followyourpose",
    "tuneavideo": "pipelines.systems.tuning",
    "wan": "pipelines.systems.wan",
    "wan-vace": "pipelines.systems.wan_vace",
}

CAPABILITIES = {  # fields of a task that some models have no use for -> what a person reads
    "image": "first image",
    "mask": "first image with a mask",
    "clip": "clip to begin with",
    "clip_strength": "strength of a clip",
    "reference": "reference image",
    "strength": "strength",
    "sound": "sound",
    "precision": "other precision",
    "caching": "cached features",
    "guided_from": "interval of guidance",
    "guided_until": "interval of guidance",
}
FASTER = frozenset({"precision", "caching", "guided_from", "guided_until"})  # shortcuts that need no weights

SCHEDULERS = {  # name in a task -> what a person reads
    "dpm++": "DPM-Solver++ 2M",
    "ddim": "DDIM",
    "unipc": "UniPC",
    "pndm": "PNDM",
    "euler": "Euler",  # of flow matching
    "lcm": "LCM",  # for networks that were distilled to few steps, by themselves or by a LoRA
}


_THEATRE = {
    "characters": ("person", "robot", "bear", "astronaut"),
    "colours": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "places": ("beach", "forest", "city", "snow", "desert", "moon"),
    "actions": ("dancing", "waving", "walking", "jumping", "bowing", "kicking"),
}

_BODIES = {  # of the paper theatre's characters: test_retargeting holds them against the drawn ones
    "person": Body(0.097, 0.155, 0.145, 0.295, 0.195, 0.195, 0.13, 0.056, 0.064, 0.035),
    "robot": Body(0.129, 0.16, 0.155, 0.298, 0.18, 0.18, 0.135, 0.06, 0.07, 0.04),
    "bear": Body(0.119, 0.165, 0.14, 0.34, 0.14, 0.13, 0.145, 0.067, 0.081, 0.05),
    "astronaut": Body(0.119, 0.165, 0.145, 0.309, 0.165, 0.165, 0.145, 0.065, 0.078, 0.05),
}

_NOT_FOR = (
    "Realistic depictions of real people or events; demeaning, hateful, violent, pornographic or "
    "misleading content. Made for research."
)

_MCM = Source("yhzhai/mcm")
_MCM_STYLES = {"webvid": "as filmed", "laion": "as photographed", "anime": "anime", "real": "realistic"}
_MCM_STYLES |= {"3d-cartoon": "3D cartoon"}
_LORAS_MODELSCOPE = {  # Zhai et al., 2024, "Motion Consistency Model"
    f"mcm-{style}": Lora(
        title=f"Fast, 4 steps: {words}",
        source=_MCM,
        file=f"modelscopet2v-{style}/adapter_model.safetensors",
        timestep_scaling=4.0,
        licence="Apache 2.0; the model that it changes stays as it is licensed",
        needs="A download of a few hundred MB.",
    )
    for style, words in _MCM_STYLES.items()
}
_LORAS_STABLE_DIFFUSION = {  # Luo et al., 2023, "LCM-LoRA"; made for pictures: what it does to a video is not trained
    "lcm": Lora(
        title="Fast, 4 steps",
        source=Source("latent-consistency/lcm-lora-sdv1-5"),
        file="pytorch_lora_weights.safetensors",
        licence="CreativeML OpenRAIL++-M",
        needs="A download of 135 MB.",
    )
}

_LEFT_OUT = (  # as Wan's makers advise, in English
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
_STABLE_LIMITS = Limits(
    frames=Range(2, 128), side=Range(256, 768, 8), fps=Range(0.1, 60, 0), voxels=32 * 512 * 512, once=32, window=24
)
_WAN_PARTS = ("tokenizer", "scheduler", "text_encoder", "transformer", "vae")
_WAN_DEFAULTS = Defaults(
    frames=81, width=832, height=480, fps=16, steps=50, guidance=6.0, scheduler="unipc", negative_prompt=_LEFT_OUT
)
_WAN_LIMITS = Limits(frames=Range(1, 481, 4), side=Range(128, 1280, 16), voxels=121 * 832 * 480, once=121, window=81)
_WAN_NOT_FOR = "Nothing illegal, no harassment, no false information, and no harm to minors."
_WAN_SHORTCOMINGS = (
    "Made for 81 frames at 832x480; worse at other sizes. Frames count from 1 in fours, width and height in sixteens. "
    "Hands and text come out badly."
)
_APACHE = "Apache 2.0: also for commercial use"
_VACE = Source(
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers", revision="ec4d2cb062b548996b179d493fdd05340de702a1", parts=_WAN_PARTS
)
_VACE_NEEDS = "A GPU with 12 GB of memory or more, 32 GB of main memory, and a download of up to 31 GB."

STABLE_DIFFUSION = Source("CompVis/stable-diffusion-v1-4", revision="133a221b8aa7292a167afc5127cb63fb5005638b")

_VACE_IMAGES = ModelCard(
    name="wan-2.1-vace-images",
    title="Wan 2.1 VACE 1.3B for images",
    system="wan-vace",
    takes=FASTER - {"caching"} | {"image", "mask", "reference"},
    source=_VACE,
    flops=13.2e6,
    flow_shift=16.0,
    defaults=replace(_WAN_DEFAULTS, guidance=5.0),
    limits=_WAN_LIMITS,
    summary="Wan 2.1 that goes on from your image, or from the part of it that you keep. A reference image can "
    "say who or what appears.",
    licence=_APACHE,
    shortcomings=_WAN_SHORTCOMINGS,
    not_for=_WAN_NOT_FOR,
    needs=_VACE_NEEDS,
    max_tokens=512,
    schedulers=("unipc", "euler"),
)

CATALOG: Mapping[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="miniature-modelscope",
            title="Paper theatre (built in)",
            system="modelscope",
            takes=FASTER,
            source=Source(str(MINIATURES / "modelscope")),
            flops=0.059e6,
            defaults=Defaults(frames=16, width=128, height=128, fps=8, steps=25, guidance=2.5, scheduler="dpm++"),
            limits=Limits(frames=Range(8, 96), side=Range(128, 128, 8), voxels=24 * 128 * 128, once=24, window=24),
            summary="A small ModelScope network, trained on drawn paper dancers. Runs anywhere, within seconds.",
            licence="MIT, like this app",
            shortcomings="Knows a few dozen words, and guesses at others.",
            not_for="Anything that should look real.",
            needs="Nothing: built in.",
            vocabulary=_THEATRE,
        ),
        ModelCard(
            name="modelscope-1.7b",
            title="ModelScope text-to-video 1.7B",
            system="modelscope",
            takes=FASTER,
            source=Source(
                "ali-vilab/text-to-video-ms-1.7b", revision="8227dddca75a8561bf858d604cc5dae52b954d01", variant="fp16"
            ),
            flops=4.7e6,
            defaults=Defaults(frames=16, width=256, height=256, fps=8, steps=25, guidance=9.0, scheduler="dpm++"),
            loras=_LORAS_MODELSCOPE,
            limits=Limits(frames=Range(1, 256), side=Range(128, 768, 8), voxels=24 * 576 * 320, once=64, window=24),
            summary="Alibaba's text-to-video diffusion model of 2023.",
            licence="CC BY-NC 4.0: not for commercial use",
            shortcomings="English only. Can't write text. Often shows a watermark. Falls apart beyond about 24 frames.",
            not_for=_NOT_FOR,
            needs="A GPU with 6 GB of memory or more, and a download of 3.7 GB.",
        ),
        ModelCard(
            name="zeroscope-v2-576w",
            title="Zeroscope v2 576w",
            system="modelscope",
            takes=FASTER,
            source=Source("cerspense/zeroscope_v2_576w", revision="6963642a64dbefa93663d1ecebb4ceda2d9ecb28"),
            flops=4.8e6,
            defaults=Defaults(frames=24, width=576, height=320, fps=8, steps=30, guidance=9.0, scheduler="dpm++"),
            limits=Limits(frames=Range(1, 256), side=Range(128, 1024, 8), voxels=36 * 576 * 320, once=64, window=24),
            summary="ModelScope's network, fine-tuned on wide clips without watermarks.",
            licence="CC BY-NC 4.0: not for commercial use",
            shortcomings="English only. Made for 24 frames at 576x320; worse at smaller sizes and fewer frames.",
            not_for=_NOT_FOR,
            needs="A GPU with 8 GB of memory or more, and a download of 3.7 GB.",
        ),
        ModelCard(
            name="wan-2.1-1.3b",
            title="Wan 2.1 text-to-video 1.3B",
            system="wan",
            takes=FASTER - {"caching"} | {"clip", "clip_strength"},
            source=Source(
                "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
                revision="0fad780a534b6463e45facd96134c9f345acfa5b",
                parts=_WAN_PARTS,
            ),
            flops=8.75e6,
            flow_shift=8.0,
            defaults=_WAN_DEFAULTS,
            limits=_WAN_LIMITS,
            summary="Alibaba's open video model of 2025: sharp, steady clips of five seconds, of people, animals and "
            "landscapes. Long prompts make better ones. It can also change a clip of yours.",
            licence=_APACHE,
            shortcomings=_WAN_SHORTCOMINGS,
            not_for=_WAN_NOT_FOR,
            needs="A GPU with 8 GB of memory or more, 32 GB of main memory, and a download of up to 29 GB.",
            max_tokens=512,
            schedulers=("unipc", "euler"),
        ),
        ModelCard(
            name="miniature-tempofunk",
            title="Paper theatre, dance (built in)",
            system="tempofunk",
            takes=FASTER | {"image", "mask"},
            source=Source(str(MINIATURES / "tempofunk")),
            image_model=Source(str(MINIATURES / "sd")),
            flops=0.038e6,
            defaults=Defaults(frames=16, width=128, height=128, fps=8, steps=20, guidance=2.5, scheduler="dpm++"),
            limits=Limits(frames=Range(8, 96), side=Range(128, 128, 64), voxels=24 * 128 * 128, once=24, window=24),
            summary="A small TempoFunk network, trained on drawn paper dancers. Can begin with your image.",
            licence="MIT, like this app",
            shortcomings="Draws paper figures only, and all of them dance.",
            not_for="Anything that should look real.",
            needs="Nothing: built in.",
            vocabulary=_THEATRE,
            schedulers=("dpm++", "ddim"),
        ),
        ModelCard(
            name="makeavid-sd",
            title="TempoFunk Make-A-Video SD",
            system="tempofunk",
            takes=FASTER | {"image", "mask"},
            source=Source("TempoFunk/makeavid-sd-jax"),
            image_model=Source(
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
                revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
                variant="fp16",
            ),
            flops=3.8e6,
            defaults=Defaults(frames=24, width=512, height=512, fps=8, steps=20, guidance=15.0, scheduler="dpm++"),
            limits=Limits(frames=Range(1, 192), side=Range(256, 768, 64), voxels=32 * 512 * 512, once=48, window=24),
            summary="Stable Diffusion with layers over time, fine-tuned on dance: 18,000 videos of 120 frames, 24 "
            "drawn from each, for 80 epochs. It can begin with an image of yours.",
            licence="AGPL 3.0, as its makers put it; the Stable Diffusion that draws the first image: CreativeML "
            "OpenRAIL-M",
            shortcomings="May produce obscene or otherwise unpleasant imagery. English only; knows dance better than "
            "anything else. Width and height are multiples of 64. Its makers advise to clean up the pictures, with "
            "superresolution or otherwise, before they are published.",
            not_for="Not for disinformation, and not for gore.",
            needs="A GPU with 8 GB of memory or more, and a download of 7 GB.",
            schedulers=("dpm++", "ddim"),
        ),
        _VACE_IMAGES,
        replace(
            _VACE_IMAGES,
            name="wan-2.1-vace-clips",
            title="Wan 2.1 VACE 1.3B for clips",
            takes=FASTER - {"caching"} | {"clip", "mask", "reference"},
            summary="Wan 2.1 that draws a part of your clip anew, where you paint, and keeps the rest. A reference "
            "image can say who or what appears there.",
        ),
        ModelCard(
            name="miniature-followyourpose",
            title="Paper theatre (built in)",
            system="followyourpose",
            takes=FASTER | {"strength", "sound"},
            source=Source(str(MINIATURES / "followyourpose")),
            defaults=Defaults(frames=16, width=128, height=128, fps=8, steps=25, guidance=2.5, scheduler="ddim"),
            limits=Limits(
                frames=Range(8, 128),
                side=Range(128, 128, 64),
                fps=Range(0.1, 60, 0),
                voxels=32 * 128 * 128,
                once=32,
                window=32,
            ),
            summary="A small FollowYourPose, trained on drawn paper dancers. Runs anywhere, within seconds.",
            licence="MIT, like this app",
            shortcomings="Knows a few dozen words. Draws paper figures only, two dancers at most, side by side.",
            not_for="Anything that should look real.",
            needs="Nothing: built in.",
            vocabulary=_THEATRE,
            flops=0.035e6,
            kind="pose-to-video",
            dancers=2,
            bodies=_BODIES,
            tuned_from="miniature-sd",
            schedulers=("ddim", "dpm++", "pndm"),
        ),
        ModelCard(
            name="followyourpose-v1",
            title="FollowYourPose v1",
            system="followyourpose",
            takes=FASTER | {"strength", "sound"},
            source=Source("YueMafighting/FollowYourPose_v1", base=STABLE_DIFFUSION),
            flops=4e6,
            defaults=Defaults(frames=24, width=512, height=512, fps=8, steps=50, guidance=12.5, scheduler="ddim"),
            loras=_LORAS_STABLE_DIFFUSION,
            limits=Limits(
                frames=Range(8, 128),
                side=Range(256, 768, 64),
                fps=Range(0.1, 60, 0),
                voxels=32 * 512 * 512,
                once=32,
                window=24,
            ),
            summary="Stable Diffusion 1.4 that follows the poses of a clip.",
            licence="None stated for the weights; the base model: CreativeML Open RAIL-M",
            shortcomings="English only. Hands, faces, text and overlapping people come out badly.",
            not_for=_NOT_FOR,
            needs="A GPU with 8 GB of memory or more, and a download of 9 GB.",
            kind="pose-to-video",
            tuned_from="stable-diffusion-1.4",
            schedulers=("ddim", "dpm++", "pndm"),
        ),
        replace(
            _VACE_IMAGES,
            name="wan-2.1-vace-poses",
            title="Wan 2.1 VACE 1.3B for poses",
            takes=FASTER - {"caching"} | {"strength", "sound", "reference"},
            limits=replace(_WAN_LIMITS, fps=Range(0.1, 60, 0)),
            summary="Wan 2.1 that follows the poses of a clip. A reference image can say who dances.",
            kind="pose-to-video",
            skeletons="openpose",
        ),
        ModelCard(
            name="miniature-sd",
            title="Paper theatre (built in)",
            system="tuneavideo",
            takes=FASTER | {"strength", "sound"},
            source=Source(str(MINIATURES / "sd")),
            flops=0.035e6,
            defaults=Defaults(frames=16, width=128, height=128, fps=8, steps=25, guidance=2.0, scheduler="ddim"),
            limits=Limits(
                frames=Range(2, 128),
                side=Range(128, 128, 8),
                fps=Range(0.1, 60, 0),
                voxels=32 * 128 * 128,
                once=32,
                window=32,
            ),
            summary="A small Stable Diffusion, trained on drawn paper dancers. Tunes anywhere, within a minute or two.",
            licence="MIT, like this app",
            shortcomings="Draws paper figures only, also from real footage.",
            not_for="Anything that should look real.",
            needs="Nothing: built in.",
            vocabulary=_THEATRE,
            kind="edit",
            schedulers=("ddim", "dpm++", "pndm"),
            tuning=TuningDefaults(steps=150, learning_rate=1e-3),
        ),
        ModelCard(
            name="stable-diffusion-1.4",
            title="Stable Diffusion 1.4",
            system="tuneavideo",
            takes=FASTER | {"strength", "sound"},
            source=STABLE_DIFFUSION,
            flops=3.7e6,
            defaults=Defaults(frames=24, width=512, height=512, fps=8, steps=50, guidance=12.5, scheduler="ddim"),
            loras=_LORAS_STABLE_DIFFUSION,
            limits=_STABLE_LIMITS,
            summary="The base model of the Tune-A-Video paper.",
            licence="CreativeML Open RAIL-M: its use restrictions apply to what you make",
            shortcomings="English only. Hands, faces and text come out badly.",
            not_for=_NOT_FOR,
            needs="A GPU with 12 GB of memory or more to tune, 6 GB to edit, and a download of 4.3 GB.",
            kind="edit",
            schedulers=("ddim", "dpm++", "pndm"),
            tuning=TuningDefaults(steps=500, learning_rate=3e-5),
        ),
        ModelCard(
            name="a-man-is-surfing",
            title="A man is surfing",
            system="tuneavideo",
            takes=FASTER,
            source=Source("Tune-A-Video-library/a-man-is-surfing", "bd2d290aeff36a4f9a8bc4e6e69b6f38d2f6b0cd"),
            defaults=Defaults(frames=8, width=512, height=512, fps=8, steps=50, guidance=7.5, scheduler="ddim"),
            loras=_LORAS_STABLE_DIFFUSION,
            limits=_STABLE_LIMITS,
            summary=(
                "Stable Diffusion 1.4, tuned by its makers on a clip of a surfer. Make somebody else surf: a "
                "panda, an astronaut."
            ),
            licence="CreativeML Open RAIL-M: its use restrictions apply to what you make",
            shortcomings="English only. Knows one motion. Hands, faces and text come out badly.",
            not_for=_NOT_FOR,
            needs="A GPU with 6 GB of memory or more, and a download of 7 GB.",
            flops=3.7e6,
            kind="edit",
            schedulers=("ddim", "dpm++", "pndm"),
        ),
    )
}

# What CLIP score and frame consistency ask for (metrics.py). It makes no video, so it has no card, and it is used only
# where it is at hand: its 1.7 GB are never downloaded unasked.
CLIP = Source("openai/clip-vit-large-patch14", revision="32bd64288804d66eefd0ccbe215aa642df71cc41")


def offered(kind: str, catalog: Mapping[str, ModelCard] = CATALOG) -> dict[str, ModelCard]:
    """The models that are for `kind`."""
    return {name: card for name, card in catalog.items() if card.kind == kind}


def named(name: object, known: Mapping[str, Thing], refusal: Message) -> Thing:
    """What is `known` by that name. Raises ValueError with the `refusal`, whose places are {name} and {names}."""
    if isinstance(name, str) and name in known:
        return known[name]
    raise ValueError(said(refusal.template, name=repr(str(name)[:80]), names=", ".join(known)))


def find(name: object, catalog: Mapping[str, ModelCard] = CATALOG) -> ModelCard:
    """The card of the model `name`. Raises ValueError listing the names there are."""
    return named(name, catalog, said("There is no model called {name}. Choose one of: {names}."))


def motions() -> dict[str, Path]:
    """The built-in motions: names, and files with their keypoints (openpose_json.read). A .gif beside each shows it."""
    return {path.stem: path for path in sorted(MOTIONS.glob("*.json"))}


def find_motion(name: object) -> Path:
    """The keypoints of the built-in motion `name`. Raises ValueError listing the names there are."""
    return named(name, motions(), said("There is no motion called {name}. Choose one of: {names}."))


def tuned_models() -> dict[str, Path]:
    """The built-in tuned models: names, and folders as a tuning leaves them (scripts/tune_built_in.py)."""
    return {file.parent.name: file.parent for file in sorted(TUNED.glob("*/tuned.json"))}
