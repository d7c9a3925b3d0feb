"""Trains the paper theatre's models: `python -m scripts.train_miniature --publish assets/miniature`.

Each stage writes a checkpoint every few minutes to the work folder and goes on from it when started again; a finished
stage is skipped. One process, or several: `accelerate launch -m scripts.train_miniature …`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from PIL import Image
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines import diffusion, modelscope
from pipelines.networks.unet3d import TextToVideoUNet
from pipelines.preview import to_uint8
from scripts.miniature import data, networks, referee
from scripts.miniature.captions import caption
from scripts.miniature.publishing import publish
from scripts.miniature.tokenizer import train_tokenizer

SEED = 2026
EXAMPLES = (  # the first, the fourth and the seventh are combinations that training holds back
    "a robot in blue waving on the beach",
    "a bear wearing green jumps in the snow",
    "an astronaut dressed in red is dancing on the moon",
    "a person in yellow dancing in the city",
    "a robot in white walking in the forest",
    "a bear in purple kicks in the desert",
    "an astronaut in orange bows on the beach",
    "a person in yellow waves in the snow",
)


def train(
    accelerator: Accelerator,
    name: str,
    modules: torch.nn.Module,
    loss_of: Callable[[torch.nn.Module, int, np.random.Generator], torch.Tensor],
    steps: int,
    rates: dict[str, float],
    work: Path,
    grid: Callable[[], np.ndarray],
) -> None:
    """Trains `modules` for `steps` steps, linear warm-up and decay, and leaves their moving averages in them.

    `rates` are learning rates by a part of the parameters' names: the first that a name contains is its own.

    `loss_of(modules, step, rng)` draws its own batch; every process has its own rng. The state is kept in
    `work/name.pt`, so that a run that was killed goes on from its last checkpoint. `grid()` draws what the averaged
    modules can do, an image uint8 [H,W,3]; it is kept as `work/grids/name-step.png` every ten minutes.
    """
    groups = [{"params": [], "lr": rate} for rate in rates.values()]
    for parameter_name, parameter in modules.named_parameters():
        groups[next(i for i, part in enumerate(rates) if part in parameter_name)]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-3)
    warm_up = min(200, 1 + steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, max((steps - step) / (steps - warm_up), 0.02))
    )
    average = EMAModel(modules.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    checkpoint, start = work / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        start = state["step"]
        schedule.last_epoch = start
    average.to(accelerator.device)
    wrapped = accelerator.prepare(modules)
    optimizer = accelerator.prepare(optimizer)
    rng = np.random.default_rng((SEED, start, accelerator.process_index))
    torch.manual_seed(SEED + start + accelerator.process_index)
    quiet = not accelerator.is_main_process
    bar = tqdm(range(start, steps), name, initial=start, total=steps, mininterval=10, disable=quiet)
    saved = drawn = time.monotonic()
    losses = []
    for step in bar:
        with accelerator.autocast():
            loss = loss_of(wrapped, step, rng)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.step(modules.parameters())
        losses = [*losses[-199:], loss.item()]
        if step % 20 == 0:
            bar.set_postfix(loss=f"{np.mean(losses):.4f}")
        if accelerator.is_main_process and (time.monotonic() - saved > 180 or step + 1 == steps):
            state = {
                "modules": modules.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            saved = time.monotonic()
        if accelerator.is_main_process and time.monotonic() - drawn > 600:
            average.store(modules.parameters())
            average.copy_to(modules.parameters())
            save_grid(work / "grids" / f"{name}-{step + 1}.png", grid())
            average.restore(modules.parameters())
            drawn = time.monotonic()
    accelerator.wait_for_everyone()
    average.copy_to(modules.parameters())
    if accelerator.is_main_process:
        save_grid(work / "grids" / f"{name}-{steps}.png", grid())


def go_on_from(start: Path | None, part: str, module: torch.nn.Module) -> None:
    """Gives `module` the weights published as `part` of the folder `start`, if there is one."""
    if start:
        module.load_state_dict(type(module).from_pretrained(start / part, torch_dtype=torch.float32).state_dict())


def save_grid(file: Path, grid: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).save(file)


def as_grid(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [rows,columns,H,W,3] side by side: [rows*H, columns*W, 3]."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in frames])


class VaeTrainer(torch.nn.Module):
    """Wraps the autoencoder so that one forward is one loss (what DistributedDataParallel asks for)."""

    def __init__(self, vae: torch.nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
        posterior = self.vae.encode(images).latent_dist
        restored = self.vae.decode(posterior.sample()).sample.float()
        weight = 1 + 2 * figures  # the dancer is small, and what everybody looks at
        error = restored - images
        plain = (weight * (error.abs() + error.square())).mean()
        edges = sum(
            (weight[..., 1:, 1:] * error.diff(dim=dim)[..., : error.shape[2] - 1, : error.shape[3] - 1].abs()).mean()
            for dim in (2, 3)
        )
        return plain + edges + 3e-4 * posterior.kl().mean() / posterior.mean[0].numel()


@torch.no_grad()
def start_as_pooling(vae: AutoencoderKL) -> None:
    """Initial weights from which little training goes a long way.

    PyTorch's own shrink the signal at every convolution, until the normalised branches drown the plain colours that
    the rest carries. These keep its variance, and every residual branch starts at zero. The posterior starts sure of
    itself: at unit variance its noise drowns what the decoder should learn to read.
    """
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=(1 / module.weight[0].numel()) ** 0.5)
            torch.nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                torch.nn.init.zeros_(module.weight)
    vae.quant_conv.weight[4:] *= 0.1
    torch.nn.init.constant_(vae.quant_conv.bias[4:], -6)


def train_vae(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    vae = networks.autoencoder()
    start_as_pooling(vae)
    go_on_from(arguments.start, "sd/vae", vae)
    device = accelerator.device

    def loss_of(trainer, step, rng):
        # Cut-outs see four times as many dancers; whole pictures at the end set the norms' statistics right.
        whole = step > 0.85 * arguments.vae_steps
        count, size = (max(1, arguments.batch // 4), data.SIZE) if whole else (arguments.batch, data.SIZE // 2)
        images, figures = data.crops(arguments.work / "clips", count, size, rng)
        return trainer(torch.from_numpy(images).to(device), torch.from_numpy(figures).to(device))

    @torch.no_grad()
    def grid() -> np.ndarray:
        stored = np.load(arguments.work / "clips" / "frames.npy", mmap_mode="r")
        frames = stored[:: len(stored) // 8][:8, 0]
        images = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        restored = vae.decode(vae.encode(images).latent_dist.mode()).sample
        return as_grid(np.stack([frames, to_uint8(restored.permute(0, 2, 3, 1)).cpu().numpy()]))

    train(accelerator, "vae", VaeTrainer(vae), loss_of, arguments.vae_steps, {"": 2e-3}, arguments.work, grid)
    if accelerator.is_main_process:
        vae.save_pretrained(arguments.work / "vae")


class Diffusion:
    """What both diffusion stages share: noise, its schedule, and the loss."""

    def __init__(self, device: torch.device):
        self.schedule = DDPMScheduler(**{k: v for k, v in networks.SCHEDULER.items() if k.startswith("beta")})
        signal = self.schedule.alphas_cumprod.to(device)
        # Min-SNR-5 weights (Hang et al. 2023, section 3.4) for epsilon prediction: far fewer steps to a good model.
        # They are the density that timesteps are drawn from, which is worth more than as many multiplications.
        weight = (5 * (1 - signal) / signal).clamp(max=1)
        self.cumulative = weight.cumsum(0) / weight.sum()
        self.device = device

    def loss(self, predict: Callable[..., torch.Tensor], latents: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
        """Weighted error of the noise that `predict(noisy, times)` finds.

        latents [B,4,(F,)h,w], scaled; figures [B,1,(F,)h,w], 0 to 1.

        The dancer counts five times: it is a small part of the picture, and harder than the rest. No weight of this
        kind changes what a network learns in the end, only how soon it learns what.
        """
        noise = torch.randn_like(latents)
        # One draw for the batch, evenly spread: every batch sees little noise and much.
        spread = (torch.rand(1) + torch.arange(len(latents)) / len(latents)) % 1
        times = torch.searchsorted(self.cumulative, spread.to(self.device)).clamp(max=999)
        predicted = predict(self.schedule.add_noise(latents, noise, times), times)
        count = 1 + 4 * figures
        errors = (count * (predicted.float() - noise).square()).flatten(1).mean(1) / count.mean()  # (B,)
        return errors.mean()


class Latents:
    """The cached posteriors of the drawn clips, sampled anew at each use, and captions for them."""

    def __init__(self, work: Path, tokenizer: CLIPTokenizerFast, scale: float, device: torch.device):
        self.folder = work / "clips"
        self.stored = np.load(self.folder / "latents.npy", mmap_mode="r")
        self.masks = np.load(self.folder / "figures.npy", mmap_mode="r")
        self.words = data.load_words(self.folder)
        self.tokenizer, self.scale, self.device = tokenizer, scale, device

    def count(self) -> int:
        """How many clips are encoded; the stage that does it may still be running in another process."""
        return data.encoded(self.folder)

    def sample(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """Scaled latents [B,...,4,16,16] of `frames` of `clips`."""
        mean, deviation = np.moveaxis(self.stored[clips, frames].astype(np.float32), -4, 0)
        mean, deviation = (torch.from_numpy(x).to(self.device) for x in (mean, deviation))
        return (mean + deviation * torch.randn_like(mean)) * self.scale

    def figures(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """How much of each latent pixel the dancer covers, 0 to 1: [B,...,1,16,16]."""
        pixels = np.unpackbits(self.masks[clips, frames], axis=-1)  # (B, ..., 128, 128)
        cells = pixels.reshape(*pixels.shape[:-2], 1, 16, 8, 16, 8).mean((-3, -1), dtype=np.float32)
        return torch.from_numpy(cells).to(self.device)

    def tokens(self, clips: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Token ids [B,77] of a new caption for each clip; one in ten is empty, for classifier-free guidance."""
        texts = ["" if rng.random() < 0.1 else caption(self.words[clip], rng) for clip in clips]
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        return ids.to(self.device)


class ImageTrainer(torch.nn.Module):
    """Text encoder and image UNet, trained together."""

    def __init__(self, text_encoder: torch.nn.Module, unet: torch.nn.Module, diffusion: Diffusion):
        super().__init__()
        self.text_encoder, self.unet, self.diffusion = text_encoder, unet, diffusion

    def forward(self, latents: torch.Tensor, figures: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        context = self.text_encoder(ids).last_hidden_state
        return self.diffusion.loss(lambda *noisy: self.unet(*noisy, context).sample, latents, figures)


class VideoTrainer(torch.nn.Module):
    """The video UNet, under text states of the image stage's frozen encoder."""

    def __init__(self, unet: torch.nn.Module, diffusion: Diffusion):
        super().__init__()
        self.unet, self.diffusion = unet, diffusion

    def forward(self, latents: torch.Tensor, figures: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.diffusion.loss(TextToVideoUNet(self.unet, context), latents, figures)


def cache_latents(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(accelerator.device)

    @torch.no_grad()
    def posterior(frames: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(frames).to(accelerator.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        latent = vae.encode(images).latent_dist
        return torch.stack([latent.mean, latent.std], 1).float().cpu().numpy()  # (F, 2, 4, 16, 16)

    if accelerator.is_main_process:
        data.encode_clips(arguments.work / "clips", posterior)
    accelerator.wait_for_everyone()


def train_sd(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    work, device = arguments.work, accelerator.device
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    if arguments.start:  # what the networks have learned goes with its scale and its tokens
        scale = AutoencoderKL.from_pretrained(arguments.start / "sd" / "vae").config.scaling_factor
        CLIPTokenizerFast.from_pretrained(arguments.start / "sd" / "tokenizer").save_pretrained(work / "tokenizer")
    else:
        stored = np.load(work / "clips" / "latents.npy", mmap_mode="r")[:500, ::4, 0]
        scale = float(1 / stored.astype(np.float32).std())
        train_tokenizer(work / "tokenizer", SEED)
    vae.register_to_config(scaling_factor=scale)
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    latents = Latents(work, tokenizer, vae.config.scaling_factor, device)
    trainer = ImageTrainer(networks.text_encoder(len(tokenizer)), networks.image_unet(), Diffusion(device))
    go_on_from(arguments.start, "sd/text_encoder", trainer.text_encoder)
    go_on_from(arguments.start, "sd/unet", trainer.unet)

    def loss_of(trainer, step, rng):
        clips = rng.integers(0, latents.count(), 3 * arguments.batch)
        frames = rng.integers(0, data.FRAMES, len(clips))
        return trainer(latents.sample(clips, frames), latents.figures(clips, frames), latents.tokens(clips, rng))

    @torch.no_grad()
    def grid() -> np.ndarray:
        texts = ["", *EXAMPLES]
        ids = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids.to(device)
        empty, states = trainer.text_encoder(ids).last_hidden_state.split([1, len(EXAMPLES)])
        context = torch.cat([empty.expand_as(states), states])

        def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
            return trainer.unet(latents.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=context).sample

        noise = diffusion.draw_noise((len(EXAMPLES), 4, 16, 16), SEED).to(device)
        solver = diffusion.solver("dpm++", networks.SCHEDULER, 20)
        alphas = diffusion.alphas_cumprod(networks.SCHEDULER)
        *_, last = diffusion.denoise(diffusion.guided(predict, 4), noise, solver, alphas)
        pictures = np.stack(list(modelscope.decode(vae, last.latents.transpose(0, 1)[None])))
        return as_grid(pictures.reshape(2, -1, data.SIZE, data.SIZE, 3))

    train(accelerator, "sd", trainer, loss_of, arguments.sd_steps, {"": 2e-3}, work, grid)
    if accelerator.is_main_process:
        vae.save_pretrained(work / "vae")
        trainer.text_encoder.save_pretrained(work / "text_encoder")
        trainer.unet.save_pretrained(work / "unet")


def train_modelscope(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    work, device = arguments.work, accelerator.device
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(work / "text_encoder").to(device)
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    latents = Latents(work, tokenizer, vae.config.scaling_factor, device)
    unet = networks.video_unet()
    networks.start_as_images(unet, UNet2DConditionModel.from_pretrained(work / "unet"))
    go_on_from(arguments.start, "modelscope/unet", unet)
    steps = arguments.modelscope_steps

    def loss_of(trainer, step, rng):
        # Half clips first: twice the clips in the same time, while the network learns what a motion is.
        frames = data.FRAMES if step > 0.6 * steps else data.FRAMES // 2
        clips = rng.integers(0, latents.count(), arguments.batch // 2 * data.FRAMES // frames)
        start = rng.integers(0, data.FRAMES - frames + 1)
        with torch.no_grad():
            context = text_encoder(latents.tokens(clips, rng)).last_hidden_state
        part = slice(start, start + frames)
        video, figures = (get(clips, part).transpose(1, 2) for get in (latents.sample, latents.figures))
        return trainer(video, figures, context)  # (B, 4, F, 16, 16), (B, 1, F, 16, 16)

    @torch.no_grad()
    def grid() -> np.ndarray:
        rows = []
        for text in EXAMPLES[:4]:
            states = modelscope.encode(["", text], tokenizer, text_encoder)
            noise = diffusion.draw_noise((1, 4, data.FRAMES, 16, 16), SEED).to(device)
            *_, last = modelscope.sample(unet, states, noise, networks.SCHEDULER, "dpm++", 20, 6)
            rows.append(np.stack(list(modelscope.decode(vae, last.latents)))[::2])
        return as_grid(np.stack(rows))

    rates = {"temp_": 1e-3, "transformer_in": 1e-3, "": 7e-4}  # slower where the image model has learned already
    train(accelerator, "modelscope", VideoTrainer(unet, Diffusion(device)), loss_of, steps, rates, work, grid)
    if accelerator.is_main_process:
        unet.save_pretrained(work / "unet3d")


def train_judge(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    if accelerator.is_main_process:
        referee.train_referee(arguments.work)
    accelerator.wait_for_everyone()


STAGES = {
    "referee": train_judge,
    "vae": train_vae,
    "latents": cache_latents,
    "sd": train_sd,
    "modelscope": train_modelscope,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--work", type=Path, default=Path("training"), help="checkpoints and caches (several GB)")
    parser.add_argument("--publish", type=Path, help="folder for the finished weights: assets/miniature")
    parser.add_argument("--start", type=Path, help="folder of published weights to go on from")
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8, help="crops or clips a process")
    parser.add_argument("--vae-steps", type=int, default=5500)
    parser.add_argument("--sd-steps", type=int, default=3000)
    parser.add_argument("--modelscope-steps", type=int, default=2000)
    arguments = parser.parse_args()
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // accelerator.num_processes))
    set_seed(SEED)
    with accelerator.main_process_first():
        data.draw_clips(arguments.work / "clips", arguments.clips, SEED)
    for stage in arguments.stages:
        STAGES[stage](accelerator, arguments)
    if accelerator.is_main_process and arguments.publish:
        publish(arguments.work, arguments.publish)


if __name__ == "__main__":
    main()
