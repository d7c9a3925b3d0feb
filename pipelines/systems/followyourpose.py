"""FollowYourPose (Ma et al., 2023, "Follow Your Pose"): a prompt and a skeleton clip become a video.

Read top to bottom: get the skeletons (pose_sequence.py), read the prompt, compute the skeletons' features once a job,
denoise, decode. `prepare_skeletons`, `pose_features` and `sample` need neither a task nor a manager; scripts/parity
holds them against the original. Latents are decoded as ModelScope's are.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.events import DENOISING, Preview, Progress
from pipelines.media.measuring import Measured
from pipelines.messages import said
from pipelines.models.memory import peak_bytes, remembered
from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.networks.pose_adapter import VAE_SCALE_FACTOR
from pipelines.models.tokens import MAX_TOKENS
from pipelines.poses.pose_sequence import PoseSequence, skeletons
from pipelines.systems import tuneavideo
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import Step, draw_noise, image_solver
from pipelines.systems.engine import Engine
from pipelines.systems.modelscope import decode
from pipelines.systems.prediction import EXACT, Shortcuts
from pipelines.systems.shortcuts import plan
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    checkpoint_of,
    decode_frames,
    encode,
    prepare,
    report_progress,
    run_facts,
    step_facts,
    vae_scale_factor,
    working_memory,
)
from pipelines.tasks import PoseToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

FINDING = said("Finding the poses")


@torch.no_grad()
def generate(
    task: PoseToVideo,
    models: "ModelManager",
    clip: Path | None = None,
    known: Path | None = None,
    tuned: Path | None = None,
    follow: Callable[[PoseSequence], None] = lambda sequence: None,
    measured: Measured | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generator[Progress | Preview, None, tuple[np.ndarray, dict[str, Any]]]:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    `clip` is the upload with the poses, None where the task names a motion; with fewer frames than are asked for, so
    has the video. `measured` is what was measured of it, if that is known. `known` is the folder in which found poses
    are cached; `follow` is called with the skeletons, once they are known. `tuned` is the folder of a model that was
    tuned on a clip (tuning.py): its queries and its attention over time replace the network's, so that the clip's
    dancer dances. It goes on from the `checkpoints` of its job, and keeps them. Raises ValueError, in words for the
    person who asked, as `skeletons` does, where the tuned model is damaged or was made from another base,
    and where the result holds no numbers or no picture.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    sequence = yield from skeletons(task, models, clip, known, measured)
    follow(sequence)
    task = replace(task, frames=len(sequence.pictures))
    seconds[FINDING] = time.perf_counter() - started

    began = time.perf_counter()
    yield Progress(READING, 0, 1)
    base = models.card(task.model).tuned_from
    looks = tuneavideo.load(tuned, models.key(f"{base}/inflated_unet")) if tuned else None
    way = plan(task, models, "inflated_unet")
    further = task.frames - (way.sampling.window or task.frames)  # frames that no window holds, but for their features
    more = way.bytes + further * features_memory(task, models, way.part)
    denoising_bytes, slices = working_memory(task, models, denoising_memory, way.part, more)
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    text_states, previewer, factor, channels, schedule = prepare(task, texts, models)
    seconds[READING] = time.perf_counter() - began
    yield Progress(READING, 1, 1)

    height, width = task.height // factor, task.width // factor
    with (
        models.lease(f"{task.model}/{way.part}", working_bytes=denoising_bytes) as leased,
        tuneavideo.applied(leased, looks.delta) if looks else nullcontext(),
    ):
        began = time.perf_counter()
        unet = way.network(leased)
        ready = prepare_skeletons(sequence.pictures, width * VAE_SCALE_FACTOR, height * VAE_SCALE_FACTOR)
        features = pose_features(unet, ready, task.strength)
        noise = draw_noise((1, channels, task.frames, height, width), task.seed).to(unet.device)
        settings = (way.schedule(schedule), task.scheduler, task.steps, task.guidance, slices, way.sampling, task.seed)
        key = f"{models.key(f'{task.model}/{way.part}')}, {looks.steps if looks else 0} steps of tuning"
        checkpoint = checkpoint_of(checkpoints, "denoising", unet, key, slices, way.sampling)
        steps = sample(unet, text_states, noise, features, *settings, checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        seconds[DENOISING] = time.perf_counter() - began
        facts = run_facts(step, unet, slices, models) | {"approximations": way.approximations}

    began = time.perf_counter()
    frames = yield from decode_frames(task, step.latents, decode, models)
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts | sequence.facts


def prepare_skeletons(frames: np.ndarray, width: int = 512, height: int = 512, antialias: bool = True) -> Tensor:
    """Skeleton pictures, uint8 RGB (f, H, W, 3), as the adapter wants them: (1, f, 3, height, width), fp32 in [0, 1].

    Enlarged or reduced until they cover the size, keeping their shape, and cut to its centre. The published code
    reduces them with or without `antialias`, depending on the version of torchvision that it finds.
    """
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()  # (f, 3, H, W)
    rows, columns = pictures.shape[2:]
    if width * rows >= height * columns:
        size = (width * rows // columns, width)
    else:
        size = (height, height * columns // rows)
    pictures = F.interpolate(pictures, size=size, mode="bilinear", antialias=antialias)
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return pictures[None, :, :, top : top + height, left : left + width] / 255


def pose_features(unet: InflatedUNet, skeletons: Tensor, strength: float = 1.0) -> list[Tensor]:
    """What `sample` is to follow: the adapter's features of `skeletons` (1, f, 3, H, W), times `strength`.

    Each is (1, c_i, f, H / 8 / 2^i, W / 8 / 2^i). Raises ValueError where H or W is no multiple of 64.
    """
    features = unet.skeleton_adapter(skeletons.to(unet.device, unet.dtype))
    return [strength * feature for feature in features]


def sample(
    unet: InflatedUNet,
    text_states: Tensor,
    latents: Tensor,
    features: list[Tensor],
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    slices: int = 1,
    shortcuts: Shortcuts = EXACT,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Step]:
    """As `tuneavideo.sample`, following `features` (of `pose_features`): the same for all steps and both branches."""
    settings = (schedule, scheduler, steps, guidance, slices, features, shortcuts, seed)
    return tuneavideo.sample(unet, text_states, latents, *settings, checkpoint)


def features_memory(task: PoseToVideo, models: "ModelManager", part: str) -> int:
    """Bytes that the poses' features of one frame take, for the network `part`."""
    factor = vae_scale_factor(models.empty(f"{task.model}/vae"))
    size = (side // factor * VAE_SCALE_FACTOR for side in (task.height, task.width))
    features = pose_features(models.empty(f"{task.model}/{part}"), torch.empty(1, 1, 3, *size, device="meta"))
    return sum(feature.nbytes for feature in features)


@remembered
def denoising_memory(unet: InflatedUNet, branches: int, frames: int, height: int, width: int, slices: int) -> int:
    """Bytes that the poses' features and one step take beside the weights; `unet` without weights, height and width of
    the latents."""
    latents = torch.empty(1, unet.config.in_channels, frames, height, width, device="meta")
    texts = torch.empty(branches, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)
    pictures = torch.empty(1, frames, 3, height * VAE_SCALE_FACTOR, width * VAE_SCALE_FACTOR, device="meta")
    timestep = torch.empty(1, device="meta")

    def work() -> Tensor:
        network = EditingUNet(unet, texts, slices, pose_features(unet, pictures))
        return network(latents.to(unet.dtype), timestep).float()

    return peak_bytes(work)


ENGINE = Engine(
    generate={PoseToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "inflated_unet"),
    encode=encode,
    network=EditingUNet,
    denoising_memory=denoising_memory,
    solver=image_solver,
    decode=decode,
)
