"""VACE on Wan 2.1 (Jiang et al., 2025, "VACE: All-in-One Video Creation and Editing"): a prompt and a control clip.

The control says of every pixel what is there and, by a mask, whether it is kept or followed while it is drawn anew. A
clip of skeletons is followed everywhere; of a first image the first frame is kept, and of a clip that is edited what no
mask covers. Pictures of who or what is to appear
come before the video, and are cut off after it. Read top to bottom: make the control, read the prompt, denoise under
it, decode. All but the control is Wan's (wan.py).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from PIL import Image
from torch import Tensor

from pipelines.events import DENOISING, Progress
from pipelines.media import clips, images, measuring
from pipelines.media.measuring import Measured
from pipelines.messages import said
from pipelines.models.classes import Network
from pipelines.models.memory import peak_bytes, remembered
from pipelines.poses.pose_sequence import PoseSequence, skeletons
from pipelines.systems import umt5, wan
from pipelines.systems.checkpoints import Checkpoints
from pipelines.systems.diffusion import Predict, Step, draw_noise
from pipelines.systems.engine import Engine, Generated
from pipelines.systems.preview import Previewer
from pipelines.systems.shortcuts import plan
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    checkpoint_of,
    decode_frames,
    report_progress,
    run_facts,
    step_facts,
)
from pipelines.tasks import PoseToVideo, TextToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

FINDING = said("Finding the poses")


@torch.no_grad()
def follow_poses(
    task: PoseToVideo,
    models: "ModelManager",
    clip: Path | None = None,
    known: Path | None = None,
    follow: Callable[[PoseSequence], None] = lambda sequence: None,
    measured: Measured | None = None,
    checkpoints: Checkpoints | None = None,
    reference: Path | None = None,
) -> Generated:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    `clip`, `known`, `follow`, `measured` and `checkpoints` are those of followyourpose.generate, `reference` is the
    file that the task names, if it does. Of a clip with too few frames the first 4k + 1 are followed. Raises
    ValueError, in words for the person who asked, as `skeletons` does, where a file is no picture, and where the result
    holds no numbers or no picture.
    """
    started = time.perf_counter()
    sequence = yield from skeletons(task, models, clip, known, measured)
    sequence = sequence.first(4 * (wan.latent_frames(len(sequence.pictures)) - 1) + 1)
    follow(sequence)
    task = replace(task, frames=len(sequence.pictures))
    seconds = {FINDING: time.perf_counter() - started}
    drawn = wan.as_clip(sequence.pictures)
    everywhere = torch.ones_like(drawn[:, :1])
    frames, facts = yield from _generate(task, models, drawn, everywhere, checkpoints, reference, task.strength)
    facts["seconds_by_stage"] = seconds | facts["seconds_by_stage"]
    return frames, facts | sequence.facts


@torch.no_grad()
def generate(
    task: TextToVideo,
    models: "ModelManager",
    image: Path | None = None,
    mask: Path | None = None,
    checkpoints: Checkpoints | None = None,
    reference: Path | None = None,
    clip: Path | None = None,
    measured: Measured | None = None,
) -> Generated:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    `image`, `mask`, `reference` and `clip` are the files that the task names, if it does, and `measured` what was
    measured of the clip, if that is known; of one with too few frames the first 4k + 1 are edited. It goes on from the
    `checkpoints` of its job, and keeps them. Raises ValueError, in words for the person who asked, where the result
    holds no numbers or no picture, and where a file can't be read.
    """
    if clip is not None:
        assert mask is not None, "of a clip what a mask covers is drawn anew"
        yield Progress(READING, 0, 1)
        measured = measured or measuring.measure(clip, models.settings)
        pictures = wan.whole(clips.read_changed(task, clip, models.settings, measured))
        task = replace(task, frames=len(pictures))
        covered = images.read(mask, models.settings, "L")
        control, drawn = edited_clip(pictures, covered, measured.clip.width, measured.clip.height)
        frames, facts = yield from _generate(task, models, control, drawn, checkpoints, reference)
        return frames, facts | {"clip_frames": len(pictures)}
    given = unwanted = None
    if image is not None:
        given = images.read(image, models.settings)
        unwanted = images.read(mask, models.settings, "L") if mask is not None else None
    control, drawn = first_image(given, unwanted, task.frames, task.width, task.height)
    frames, facts = yield from _generate(task, models, control, drawn, checkpoints, reference)
    return frames, facts | {"first_image": "none" if image is None else "given"}


def _generate(
    task: TextToVideo | PoseToVideo,
    models: "ModelManager",
    clip: Tensor,
    mask: Tensor,
    checkpoints: Checkpoints | None,
    reference: Path | None,
    strength: float = 1.0,
) -> Generated:
    """As `generate`, under the control `clip` (1, 3, F, H, W) in [-1, 1] and `mask` (1, 1, F, H, W)."""
    started, seconds = time.perf_counter(), {}
    yield Progress(READING, 0, 1)
    pictures = [] if reference is None else [images.read(reference, models.settings)]
    references = [laid_out(picture, task.width, task.height) for picture in pictures]
    way = plan(task, models, "transformer")
    working_bytes, slices = wan.working_memory(task, models, denoising_memory, way.part, len(references))
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    text_states = umt5.read(texts, task, models)
    empty = models.empty(f"{task.model}/vae")
    shape = wan.latent_shape(empty, task.frames, task.height, task.width)
    with models.lease(f"{task.model}/vae", working_bytes=wan.encoding_memory(empty, *shape[-2:])) as vae:
        previewer = Previewer(*wan.latent_colours(vae), task.fps / 4)
        control = control_latents(vae, clip, mask, references)
    with models.lease(f"{task.model}/scheduler") as config:
        schedule = wan.shifted(config, models.card(task.model).flow_shift)
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    began = time.perf_counter()
    with models.lease(f"{task.model}/{way.part}", working_bytes=working_bytes) as transformer:
        noise = draw_noise((*shape[:2], *control.shape[2:]), task.seed).to(transformer.device)
        of = under(control, transformer, slices, strength, len(references))
        key = models.key(f"{task.model}/{way.part}")
        checkpoint = checkpoint_of(checkpoints, "denoising", transformer, key, slices, way.sampling)
        settings = schedule, task.scheduler, task.steps, task.guidance, way.sampling, checkpoint
        steps = wan.sample(of, text_states, noise, *settings, before=len(references))
        steps = without_references(steps, len(references))
        step = yield from report_progress(steps, DENOISING, previewer)
        facts = run_facts(step, transformer, slices, models, wan.SAVING) | {"approximations": way.approximations}
    seconds[DENOISING] = time.perf_counter() - began

    began = time.perf_counter()
    frames = yield from decode_frames(task, step.latents, wan.decode, models, wan.decoding_memory(empty, *shape[-2:]))
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts | ({"reference": "given"} if references else {})


# The control


def first_image(
    image: Image.Image | None, mask: Image.Image | None, frames: int, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """The control clip (1, 3, F, H, W) in [-1, 1] and its mask (1, 1, F, H, W) by which a video begins with `image`.

    1 in the mask is drawn anew: all later frames, and where `mask` is 50 % grey or lighter. Without an image all is.
    """
    clip, drawn = torch.zeros(1, 3, frames, height, width), torch.ones(1, 1, frames, height, width)
    if image is not None:
        clip[0, :, 0] = _pixels(image.convert("RGB"), width, height)
        drawn[0, :, 0] = 0 if mask is None else (_pixels(mask.convert("L"), width, height) >= 0).float()
    return clip, drawn


def edited_clip(pictures: np.ndarray, mask: Image.Image, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The control clip (1, 3, F, H, W) in [-1, 1] and its mask (1, 1, F, H, W) by which `pictures`, uint8 (F, H, W, 3),
    are kept but for what `mask` covers in all of them; that is grey, as published, so that nothing of it is followed.

    1 in the mask is drawn anew: where `mask` is 50 % grey or lighter. It lies over the whole picture of the clip, of
    `width` and `height`, of which `pictures` are the middle.
    """
    levels = np.array(mask.convert("L").resize((width, height), Image.Resampling.BILINEAR))
    covered = clips.cut(levels, pictures.shape[2], pictures.shape[1], 0.5, 0.5) >= 128
    drawn = torch.from_numpy(covered).float().expand(1, 1, len(pictures), -1, -1)
    return wan.as_clip(pictures) * (1 - drawn), drawn


def _pixels(picture: Image.Image, width: int, height: int) -> Tensor:
    """(c, height, width) in [-1, 1]."""
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    levels = torch.from_numpy(np.array(picture, dtype=np.float32))
    return levels.view(height, width, -1).permute(2, 0, 1) / 127.5 - 1


def laid_out(picture: Image.Image, width: int, height: int) -> Tensor:
    """A reference picture, as large as it fits in the middle of a white canvas: (1, 3, 1, height, width) in [-1, 1]."""
    pixels = wan.as_clip(np.array(picture.convert("RGB"))[None])[:, :, 0]  # (1, 3, H, W)
    scale = min(height / pixels.shape[2], width / pixels.shape[3])
    rows, columns = (max(1, int(side * scale)) for side in pixels.shape[2:])
    pixels = F.interpolate(pixels, size=(rows, columns), mode="bilinear", align_corners=False)  # as published
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas = torch.ones(1, 3, 1, height, width)
    canvas[:, :, 0, top : top + rows, left : left + columns] = pixels
    return canvas


def control_latents(vae: AutoencoderKLWan, clip: Tensor, mask: Tensor, references: Sequence[Tensor] = ()) -> Tensor:
    """What the transformer takes of a control: latents of what is kept, of what is followed, and the mask of every
    latent's pixels: (1, 2c + s^2, r + f, h, w), fp32, s being the VAE's factor.

    `clip` (1, 3, F, H, W) is in [-1, 1]; in `mask` (1, 1, F, H, W) 0 is kept and 1 drawn anew. Each of r `references`
    (1, 3, 1, H, W) is a frame of latents before those of the clip, kept as a whole; the last comes first, as published.
    """
    kept, followed = (wan.encode_clip(vae, clip * part) for part in (1 - mask, mask))
    drawn = latent_mask(mask, kept.shape[2:], vae.config.scale_factor_spatial).to(kept.device)
    pictures = [wan.encode_clip(vae, picture) for picture in reversed(references)]
    nothing = [torch.zeros_like(picture) for picture in pictures]
    parts = (
        torch.cat([*pictures, kept], dim=2),
        torch.cat([*nothing, followed], dim=2),
        F.pad(drawn, (0, 0, 0, 0, len(pictures), 0)),
    )
    return torch.cat(parts, dim=1)


def without_references(steps: Iterator[Step], references: int) -> Iterator[Step]:
    """`steps`, without the latents of so many reference pictures, which come before the video's."""
    for step in steps:
        yield replace(step, latents=step.latents[:, :, references:], denoised=step.denoised[:, :, references:])


def under(
    control: Tensor, transformer: WanVACETransformer3DModel, slices: int, strength: float, references: int
) -> Callable[[Tensor, slice], Predict]:
    """Makes the network, under `control`, for text states and some frames of the video, before which it sees all the
    reference pictures."""
    pictures, video = control[:, :, :references], control[:, :, references:]

    def of(states: Tensor, frames: slice) -> Predict:
        seen = torch.cat([pictures, video[:, :, frames]], dim=2)
        return network(transformer, states, slices, seen, strength)

    return of


def latent_mask(mask: Tensor, size: Sequence[int], factor: int) -> Tensor:
    """`mask` (1, 1, F, H, W), for each latent of `size` (f, h, w) all its `factor`^2 pixels as channels:
    (1, factor^2, f, h, w)."""
    frames, height, width = mask.shape[2:]
    pixels = mask.view(frames, height // factor, factor, width // factor, factor)
    pixels = pixels.permute(2, 4, 0, 1, 3).flatten(0, 1)[None]  # (1, factor^2, F, h, w)
    return F.interpolate(pixels, size=tuple(size), mode="nearest-exact")


def network(
    transformer: WanVACETransformer3DModel,
    text_states: Tensor,
    slices: int = 1,
    control: Tensor | None = None,
    strength: float = 1.0,
) -> Predict:
    """As wan.network, under `control`, which counts as much as `strength` says: 1 as published, 0 not at all. Without a
    control all is drawn anew."""
    kind = {"device": text_states.device, "dtype": transformer.dtype}
    scales = torch.full((len(transformer.config.vace_layers),), strength, **kind)

    def predict(latents: Tensor, timestep: float) -> Tensor:
        given = latents.new_zeros(1, transformer.config.vace_in_channels, *latents.shape[2:])
        given = (given if control is None else control).to(**kind)

        def inputs(branches: int) -> dict[str, Tensor]:
            return {
                "control_hidden_states": given.expand(branches, -1, -1, -1, -1),
                "control_hidden_states_scale": scales,
            }

        return wan.network(transformer, text_states, slices, inputs)(latents, timestep)

    return predict


@remembered
def denoising_memory(
    transformer: WanVACETransformer3DModel, branches: int, frames: int, height: int, width: int, slices: int
) -> int:
    """As wan.denoising_memory."""
    latents = torch.empty(1, transformer.config.in_channels, frames, height, width, device="meta")
    texts = torch.empty(branches, umt5.MAX_TOKENS, transformer.config.text_dim, device="meta")
    timestep: Any = torch.empty((), device="meta")
    return peak_bytes(lambda: network(transformer, texts, slices)(latents, timestep))


ENGINE = Engine(
    generate={PoseToVideo: follow_poses, TextToVideo: generate},
    parts=wan.ENGINE.parts,
    encode=umt5.encode,
    network=network,
    denoising_memory=denoising_memory,
    solver=wan.solver,
    decode=wan.decode,
    classes={
        **wan.ENGINE.classes,
        "WanVACETransformer3DModel": Network(
            WanVACETransformer3DModel.from_config,
            complete=wan.with_positions,
            bfloat16=True,
            exact=wan.EXACT_PARTS,
        ),
    },
)
