"""One-shot tuning on a clip (Wu et al., 2023, "Tune-A-Video", section 4): the network learns one clip's motion.

Read top to bottom: the clip and its caption become latents and text states, once; the queries and the attention over
time are trained on them; the clip is inverted, for the edits to start from. tuneavideo.py makes the edits. Of a clip
that is longer than what the network sees at once each step learns a window, wherever that lies.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.cards import ModelCard
from pipelines.errors import Refusal
from pipelines.events import TUNING, Losses, Preview, Progress
from pipelines.media import clips, measuring, uploads, video
from pipelines.media.measuring import Measured
from pipelines.messages import said
from pipelines.models.convert import tuned as files
from pipelines.models.convert.tuned import Tuned
from pipelines.models.loading import component
from pipelines.models.memory import backward, largest, peak_bytes, remembered
from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.tokens import MAX_TOKENS
from pipelines.settings import Settings
from pipelines.systems import tuneavideo
from pipelines.systems.diffusion import alphas_cumprod, image_solver
from pipelines.systems.engine import Engine
from pipelines.systems.modelscope import decode
from pipelines.systems.prediction import Shortcuts
from pipelines.systems.preview import Previewer
from pipelines.systems.stable_diffusion import encode, vae_scale_factor
from pipelines.tasks import Edit, Tune, to_json

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

Item = TypeVar("Item")

READING = said("Reading the clip")
MODULES = (".attn1.to_q.", ".attn2.to_q.", ".attn_temp.")  # what is trained (section 4.2)
KEEP_EVERY = 50  # steps; what a killed process can lose
SAMPLE_STEPS, SAMPLE_GUIDANCE = 10, 5.0  # of a sample that is drawn while it tunes
STILL = 1.0  # levels: where no frame is on average further from the first, nothing moves


@torch.no_grad()
def generate(
    task: Tune,
    models: "ModelManager",
    clip: Path,
    folder: Path,
    source: Path,
    asked: Callable[[], bool] = lambda: False,
    measured: Measured | None = None,
) -> Generator[Progress | Losses | Preview, None, tuple[np.ndarray, dict[str, Any]]]:
    """Tunes on `clip`, an upload, and saves the tuned model in `folder`; resumes what is there already.

    `measured` is what was measured of the clip, if that is known. Writes the frames that it tunes on as the video
    `source`, and returns them, uint8 [F, H, W, 3], with the facts of the tuning. Where `asked()` is true after a step,
    it draws a sample, which changes nothing of the tuning. Closed early, it saves what is tuned so far. Raises
    ValueError, in words for the person who asked, where clip or caption or weights are at fault.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    yield Progress(READING, 0, 1)
    measured = measured or measuring.measure(clip, models.settings)
    frames, fps = clips.read(task, clip, models.settings, measured)
    if len(frames) < 2:
        raise Refusal(said("The chosen part of the clip is one frame. Choose a longer part, or a smaller stride."))
    if np.abs(frames.astype(np.float32) - frames[0]).mean((1, 2, 3)).max() < STILL:
        raise Refusal(said("Nothing moves in the chosen part of the clip. Choose another part, or a clip that moves."))
    with models.lease(f"{task.model}/tokenizer") as tokenizer, models.lease(f"{task.model}/text_encoder") as encoder:
        caption, empty = encode([task.prompt, ""], tokenizer, encoder).split(1)  # (1, tokens, c) each
    with models.lease(f"{task.model}/vae", working_bytes=2**28) as vae:
        mean, deviation = tuneavideo.encode_clip(vae, frames)  # (1, c, f, h, w) each, scaled
        previewer = Previewer.of(vae, fps)
    with models.lease(f"{task.model}/scheduler") as schedule:
        pass
    base = models.key(f"{task.model}/inflated_unet")
    window = models.card(task.model).limits.window_of(len(frames), task.width, task.height)
    working_bytes, checkpointing = working_memory(task, models, window or len(frames))
    begun = _begun(task, mean, fps, base, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if begun is None:  # before the clip changes: no model stands beside another's clip
        files.forget(folder)
    (folder / clips.SOUND).unlink(missing_ok=True)
    video.write(frames, source, fps, to_json(task))
    if measured.clip.sound:
        seconds_used = len(frames) / fps
        uploads.sound(clip, folder / clips.SOUND, models.settings, task.start, seconds_used, measured=measured)
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    with models.lease(f"{task.model}/inflated_unet", working_bytes=working_bytes) as unet:
        tuned = begun or _begin(task, unet, mean, fps, base)
        began, first = time.perf_counter(), len(tuned.facts["losses"])
        with tuneavideo.applied(unet, tuned.delta, trainable=True):
            network = EditingUNet(unet, caption.to(unet.dtype), checkpointing=checkpointing)
            with closing(_train(task, network, tuned, mean, deviation, schedule, folder, window)) as training:
                for event in training:
                    yield event
                    if isinstance(event, Losses) and asked():
                        yield from _sample(unet, torch.cat([empty, caption]), tuned, task, schedule, previewer, window)
        seconds[TUNING] = time.perf_counter() - began

        began = time.perf_counter()
        steps = models.card(task.model).defaults.steps
        with tuneavideo.applied(unet, tuned.delta):
            yield from tuneavideo.inverted(unet, empty, tuned, schedule, steps, folder, window=window)
        seconds[tuneavideo.INVERTING] = time.perf_counter() - began
    losses = tuned.facts["losses"]
    return frames, {
        **{"frames": len(frames), "fps": fps, "seconds_by_stage": seconds},
        **{"seconds_per_step": seconds[TUNING] / max(1, len(losses) - first), "resumed_at_step": first},
        **{"first_loss": float(np.mean(losses[:10])), "last_loss": float(np.mean(losses[-10:]))},
        **{"trained_parameters": sum(tensor.numel() for tensor in tuned.delta.values())},
        "memory_saving": "gradient checkpointing: the same result, more slowly" if checkpointing else "none needed",
        "approximations": f"each step learns {window} of the frames" if window else "none",
    }


def _sample(
    unet: InflatedUNet,
    texts: Tensor,
    tuned: Tuned,
    task: Tune,
    schedule: Mapping[str, Any],
    previewer: Previewer,
    window: int,
) -> Generator[Progress | Preview, None, None]:
    """Samples the clip under its own caption with the present parameters, in a few steps of DDIM.

    `texts` (2, tokens, c) are the empty prompt and the caption. There is no randomness in it.
    """
    latents = tuned.latents.to(unet.device)
    # In half precision what is trained is fp32 all the same.
    with torch.autocast(unet.device.type, torch.float16, enabled=unet.dtype == torch.float16):
        inversion = tuneavideo.invert(unet, texts[:1], latents, schedule, SAMPLE_STEPS, window=window)
        noise = yield from _last(inversion, tuned, task)
        settings = schedule, "ddim", SAMPLE_STEPS, SAMPLE_GUIDANCE
        steps = tuneavideo.sample(unet, texts, noise, *settings, shortcuts=Shortcuts(window))
        step = yield from _last(steps, tuned, task)
    yield previewer.preview(step.latents)


def _last(items: Iterator[Item], tuned: Tuned, task: Tune) -> Generator[Progress, None, Item]:
    """The last of `items`; reports the progress of the tuning at each, so that Stop comes in time."""
    last: Item | None = None
    for item in items:
        last = item
        yield Progress(TUNING, len(tuned.facts["losses"]), task.steps)
    assert last is not None, "there is a step at least"
    return last


def export(card: ModelCard, settings: Settings, folder: Path, target: Path) -> None:
    """Writes the model tuned from `card` in `folder` to the new folder `target`, whole, in the layout as published.

    Works on a copy of its own, so that it may run beside a job. Raises ValueError where what is in `folder` is damaged
    or was tuned from another base.
    """
    part = component(card, "inflated_unet", settings)
    tuned = tuneavideo.load(folder, part.key)
    unet = part.load(lambda done, total: None)
    with tuneavideo.applied(unet, tuned.delta):
        files.export(unet, card.source, settings, target)


def trained_parameters(unet: InflatedUNet, which: str) -> dict[str, nn.Parameter]:
    """The parameters that tuning changes, by name: queries of both spatial attentions, and all of the temporal one.

    `which` is a key of model_tasks.TRAINED: "all", as the paper says, or "mid and up", which is what the published
    configuration really trains: its gradient checkpointing lets no gradient into the down blocks.
    """
    parts = ("down_blocks", "mid_block", "up_blocks") if which == "all" else ("mid_block", "up_blocks")
    return {
        name: parameter
        for name, parameter in unet.named_parameters()
        if name.startswith(parts) and any(module in name for module in MODULES)
    }


def loss_of(
    network: EditingUNet, latents: Tensor, noise: Tensor, timesteps: Tensor, schedule: Mapping[str, Any]
) -> Tensor:
    """The mean square, in fp32, of what `network` gets wrong of `latents` (b, c, f, h, w) under `noise` at `timesteps`.

    `latents` are scaled; `timesteps` (b,) are whole numbers, one for all frames of a video. The network has to find the
    noise, or the velocity where `schedule`, the checkpoint's scheduler config, says "v_prediction".
    """
    alphas = alphas_cumprod(schedule).to(latents.device)[timesteps.to(latents.device)].view(-1, 1, 1, 1, 1)
    signal, disturbance = alphas.sqrt().float(), (1 - alphas).sqrt().float()
    target = noise
    if schedule.get("prediction_type", "epsilon") == "v_prediction":
        target = signal * noise - disturbance * latents
    noisy = signal * latents + disturbance * noise
    return F.mse_loss(network(noisy.to(network.unet.dtype), timesteps).float(), target.float())


class TuningLoss(nn.Module):
    """One tuning step's loss as a module, which is what accelerate spreads over several devices."""

    def __init__(self, network: EditingUNet, schedule: Mapping[str, Any]):
        super().__init__()
        self.unet = network.unet
        self.network, self.schedule = network, schedule

    def forward(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return loss_of(self.network, latents, noise, timesteps, self.schedule)


def working_memory(task: Tune, models: "ModelManager", frames: int) -> tuple[int, bool]:
    """What tuning takes beside the weights, in bytes, and whether it needs gradient checkpointing.

    Raises MemoryError, naming the most frames that fit, where the device hasn't so much.
    """
    unet, vae = models.empty(f"{task.model}/inflated_unet"), models.empty(f"{task.model}/vae")
    factor, room = vae_scale_factor(vae), models.room(f"{task.model}/inflated_unet")
    height, width = task.height // factor, task.width // factor

    def needs(frames: int, checkpointing: bool) -> int:
        return tuning_memory(unet, task.trained, frames, height, width, checkpointing)

    for checkpointing in (True,) if models.frugal else (False, True):
        if (needed := needs(frames, checkpointing)) <= room:
            return needed, checkpointing
    most = largest(lambda number: needs(number, True), room, range(2, frames + 1))
    advice = said("Choose a smaller size or a smaller model.")
    if most:
        advice = said("At this size {count} frames fit.", count=most)
    raise MemoryError(
        said(
            "Tuning on {frames} frames of {width}x{height} needs {needed:.2f} GB of memory on "
            "{device} beside the weights, and {room:.2f} GB can be had. {advice}",
            frames=frames,
            width=task.width,
            height=task.height,
            needed=needed / 1e9,
            device=str(models.device),
            room=max(room, 0) / 1e9,
            advice=advice,
        )
    )


@remembered
def tuning_memory(unet: InflatedUNet, trained: str, frames: int, height: int, width: int, checkpointing: bool) -> int:
    """Bytes that one tuning step takes beside the weights; `unet` without weights, height and width of the latents."""
    dtype = unet.dtype  # which looks through all parameters
    latents = torch.empty(1, unet.config.in_channels, frames, height, width, device="meta", dtype=dtype)
    text = torch.empty(1, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=dtype)
    delta = {name: parameter.to(dtype) for name, parameter in trained_parameters(unet, trained).items()}

    @torch.enable_grad()
    def step() -> None:
        network = EditingUNet(unet, text, checkpointing=checkpointing)
        predicted = network(latents, torch.empty(1, device="meta")).float()
        backward(predicted.square().mean())

    with tuneavideo.applied(unet, delta, trainable=dtype == torch.float32):
        for name in delta:
            unet.get_parameter(name).requires_grad_()
        activations = peak_bytes(step)
    return activations + 3 * 4 * sum(tensor.numel() for tensor in delta.values())  # they, and the optimizer's moments


def _begun(task: Tune, latents: Tensor, fps: float, base: str, folder: Path) -> Tuned | None:
    """The same tuning as far as `folder` holds it; None where it holds none, another one or one that can't go on."""
    if not (folder / files.FILE).exists():
        return None
    try:
        tuned = files.load(folder)
    except ValueError:  # damaged
        return None
    # A folder is of one clip, whatever that was called when the tuning began.
    before = tuned.facts | {"task": tuned.facts.get("task", {}) | {"clip": task.clip}}
    facts = _facts(task, latents, fps, base)
    same = {key: before.get(key) for key in facts} == facts
    if not same or not torch.allclose(tuned.latents.float(), latents.float().cpu(), atol=0.1):
        return None
    if len(tuned.facts["losses"]) == task.steps:
        return tuned
    if tuned.moments:
        files.forget_inversions(folder)  # edits may have been made in between
        return tuned
    return None


def _begin(task: Tune, unet: InflatedUNet, latents: Tensor, fps: float, base: str) -> Tuned:
    own = trained_parameters(unet, task.trained)
    delta = {name: parameter.detach().float().clone() for name, parameter in own.items()}
    return Tuned(_facts(task, latents, fps, base) | {"losses": []}, delta, latents)


def _facts(task: Tune, latents: Tensor, fps: float, base: str) -> dict[str, Any]:
    """What makes two tunings the same, beside the clip itself."""
    _, _, frames, *_ = latents.shape
    facts = {"base": base, "task": json.loads(to_json(task)), "frames": frames, "fps": fps}
    return facts | {"width": task.width, "height": task.height}


@torch.enable_grad()
def _train(
    task: Tune,
    network: EditingUNet,
    tuned: Tuned,
    mean: Tensor,
    deviation: Tensor,
    schedule: Mapping[str, Any],
    folder: Path,
    window: int,
) -> Generator[Progress | Losses, None, None]:
    """Trains up to `task.steps` steps; the tensors of `tuned` are the network's own, and are saved every 50 steps.

    The published recipe: AdamW, gradients clipped to a norm of 1, a fresh sample of the clip's latents, fresh noise
    and one timestep a step. With a `window` that is not 0 a step is of so many frames, drawn too.
    """
    device = network.unet.device
    accelerator = Accelerator(
        device_placement=False,  # the network stays where the manager has put it
        cpu=device.type == "cpu",
        mixed_precision="fp16" if network.unet.dtype == torch.float16 else "no",
    )
    parameters = {name: network.unet.get_parameter(name) for name in tuned.delta}
    optimizer = torch.optim.AdamW(parameters.values(), task.learning_rate, (0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    losses = tuned.facts["losses"]
    for name, parameter in parameters.items():
        if tuned.moments:
            mean_, square = (tuned.moments[f"{kind}/{name}"].to(device) for kind in ("exp_avg", "exp_avg_sq"))
            step = torch.tensor(float(len(losses)))
            optimizer.state[parameter] = {"step": step, "exp_avg": mean_, "exp_avg_sq": square}
    tuning, optimizer = accelerator.prepare(TuningLoss(network, schedule), optimizer)

    def save(done: bool = False) -> None:
        if accelerator.is_main_process and losses:
            state = {} if done else optimizer.optimizer.state
            tuned.moments = {
                f"{kind}/{name}": state[parameter][kind]
                for name, parameter in parameters.items()
                for kind in ("exp_avg", "exp_avg_sq")
                if parameter in state
            }
            files.save(tuned, folder)

    try:
        for step in range(len(losses), task.steps):
            seed = (task.seed * 2**20 + step) * accelerator.num_processes + accelerator.process_index
            generator = torch.Generator().manual_seed(seed)  # each step's own: resumed or not, it is the same
            draw, noise = (torch.randn(mean.shape, generator=generator).to(device) for _ in range(2))
            timesteps = torch.randint(schedule["num_train_timesteps"], (len(mean),), generator=generator).to(device)
            first = int(torch.randint(mean.shape[2] - window + 1, (1,), generator=generator)) if window else 0
            frames = slice(first, first + window if window else None)
            loss = tuning((mean + deviation * draw)[:, :, frames], noise[:, :, frames], timesteps)
            if not torch.isfinite(loss):
                save()
                raise ValueError(
                    said(
                        "The tuning fell apart in step {count}: its loss is no number. What was tuned before "
                        "is kept. Tune again with a lower learning rate.",
                        count=step + 1,
                    )
                )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if len(losses) % KEEP_EVERY == 0 and len(losses) < task.steps:
                save()
            yield Progress(TUNING, len(losses), task.steps)
            yield Losses(tuple(losses))
    except GeneratorExit:
        save()
        raise
    save(done=True)


ENGINE = Engine(
    generate={Tune: generate, Edit: tuneavideo.generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "inflated_unet"),
    encode=encode,
    network=EditingUNet,
    denoising_memory=tuneavideo.denoising_memory,
    solver=image_solver,
    decode=decode,
)
