"""Tune-A-Video: the inflated and the tuned network, inversion, sampling and training, from the published layouts."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipelines.cards import Source
from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.sources import source_of_folder
from pipelines.settings import Settings
from pipelines.systems import tuneavideo
from pipelines.systems.diffusion import image_solver
from pipelines.systems.stable_diffusion import encode
from pipelines.systems.tuning import loss_of, trained_parameters
from scripts.parity import inflated
from scripts.parity.checks import Check, compare_lists, compare_within, load, read, recorded

LOSSES = 1e-5
GRADIENTS = 1e-5
UPDATES = 3e-6


def check_tuneavideo(folder: Path, settings: Settings) -> Iterator[Check]:
    base = source_of_folder(folder / "sd")
    tuned = source_of_folder(folder / "tuned", base)
    schedule = load(base, "scheduler", settings)
    if recorded(folder, "inflated_forward"):
        yield from _inflated_forward(folder, load(base, "inflated_unet", settings))
    if recorded(folder, "tuned_forward"):
        yield from _tuned_forward(folder, load(tuned, "inflated_unet", settings))
    if recorded(folder, "ddim_inversion"):
        yield from _inversion(folder, load(tuned, "inflated_unet", settings), schedule)
    if recorded(folder, "pipeline"):
        yield from _pipeline(folder, tuned, settings)
    if recorded(folder, "training"):
        yield from _training(folder, load(tuned, "inflated_unet", settings), schedule)


def _cases(golden: dict[str, Tensor]) -> list[str]:
    """The recorded cases, by the prefix of their names: "" is the main one."""
    return sorted(name.removesuffix("sample") for name in golden if name.split(".")[-1] == "sample")


def _inflated_forward(folder: Path, unet: InflatedUNet) -> Iterator[Check]:
    """With the biases that the original drew, and with the zeros that the app starts from."""
    golden = read(folder / "inflated_forward.safetensors")
    drawn = {name.removeprefix("init."): tensor for name, tensor in golden.items() if name.startswith("init.")}
    for ending in ("output_zero_temp_bias", "output"):
        if ending == "output":
            for name, parameter in unet.named_parameters():
                if name in drawn:
                    parameter.copy_(drawn.pop(name))
            yield Check("inflated.init_names_unknown", len(drawn), 1, 0)
        for case in _cases(golden):
            if f"{case}{ending}" in golden:
                output = EditingUNet(unet, golden[f"{case}encoder_hidden_states"])(
                    golden[f"{case}sample"], golden[f"{case}timestep"]
                )
                yield compare_within(f"inflated.{case}{ending}", output, golden[f"{case}{ending}"], inflated.FORWARD)


def _tuned_forward(folder: Path, unet: InflatedUNet) -> Iterator[Check]:
    golden = read(folder / "tuned_forward.safetensors")
    for case in _cases(golden):
        sample, states = golden[f"{case}sample"], golden[f"{case}encoder_hidden_states"]
        output, seen = inflated.Recorder(unet, states).record(sample, golden[f"{case}timestep"])
        yield compare_within(f"tuned.{case}output", output, golden[f"{case}output"], inflated.FORWARD)
        if not case:
            yield from inflated.check_taps("tuned", golden, seen, sample.shape[2])


def _inversion(folder: Path, unet: InflatedUNet, schedule: dict) -> Iterator[Check]:
    """As published: what the network predicts is taken for noise, also where it is a velocity."""
    golden, facts = (
        read(folder / "ddim_inversion.safetensors"),
        json.loads((folder / "ddim_inversion.json").read_text()),
    )
    steps, schedule = facts["num_inv_steps"], {**schedule, "prediction_type": "epsilon"}
    timesteps = sorted(image_solver("ddim", schedule, steps).timesteps)
    yield compare_lists("inversion.timesteps", timesteps, golden["timesteps_ascending"].tolist())
    empty, prompt = golden["context_prompt"].chunk(2)
    for name, states in (("inv_latents", empty), ("inv_latent_prompt_last", prompt)):
        latents = torch.stack(list(tuneavideo.invert(unet, states, golden["video_latent"], schedule, steps)))
        ours = latents if name == "inv_latents" else latents[-1]
        yield compare_within(f"inversion.{name}", ours, golden[name], inflated.INVERSION)


def _pipeline(folder: Path, tuned: Source, settings: Settings) -> Iterator[Check]:
    golden, facts = read(folder / "pipeline.safetensors"), json.loads((folder / "pipeline.json").read_text())
    tokenizer, encoder = load(tuned, "tokenizer", settings), load(tuned, "text_encoder", settings)
    yield from inflated.check_texts(golden, facts, tokenizer, encoder)
    unet, schedule = load(tuned, "inflated_unet", settings), load(tuned.base, "scheduler", settings)
    for run in ("", "nocfg.", "neg.", "pndm."):
        if f"{run}final_latents" not in golden:
            continue
        options = {**facts, **facts.get(run.removesuffix("."), {})}
        steps, guidance = options["num_inference_steps"], options["guidance_scale"]
        scheduler = "pndm" if options["scheduler"].startswith("PNDM") else "ddim"
        if f"{run}timesteps" in golden:
            timesteps = image_solver(scheduler, schedule, steps).timesteps
            yield compare_lists(f"pipeline.{run}timesteps", timesteps, golden[f"{run}timesteps"].tolist())
        texts = [options["negative_prompt"] or "", options["prompt"]] if guidance > 1 else [options["prompt"]]
        states = encode(texts, tokenizer, encoder)
        taken = tuneavideo.sample(unet, states, golden["init_latents"], schedule, scheduler, steps, guidance)
        latents = torch.stack([step.latents for step in taken])
        if f"{run}step_latents" in golden:
            yield compare_within(
                f"pipeline.{run}step_latents", latents, golden[f"{run}step_latents"], inflated.FINAL_LATENTS
            )
        reference = golden[f"{run}final_latents"]
        yield compare_within(f"pipeline.{run}final_latents", latents[-1], reference, inflated.FINAL_LATENTS)
        if f"{run}video" in golden:
            yield from inflated.check_video(golden, latents[-1], load(tuned, "vae", settings))


@torch.enable_grad()
def _training(folder: Path, unet: InflatedUNet, schedule: dict) -> Iterator[Check]:
    """Some steps of AdamW on the recorded latents, noise and timesteps."""
    golden, facts = read(folder / "training.safetensors"), json.loads((folder / "training.json").read_text())
    parameters, options = trained_parameters(unet, "all"), facts["optimizer"]
    yield compare_lists("training.trainable", sorted(parameters), sorted(facts["trainable"]))
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=options["lr"],
        betas=options["betas"],
        weight_decay=options["weight_decay"],
        eps=options["eps"],
    )
    network = EditingUNet(unet, golden["encoder_hidden_states"])
    losses, norms, first = [], [], {}
    steps = zip(golden["vae_sample"], golden["noise"], golden["timesteps"], strict=True)
    for sample, noise, timesteps in steps:
        latents = sample.unflatten(0, (len(noise), -1)).transpose(1, 2) * facts["vae_scale"]  # (b, c, f, h, w)
        loss = loss_of(network, latents, noise, timesteps, schedule)
        optimizer.zero_grad()
        loss.backward()
        first = first or {name: parameter.grad.clone() for name, parameter in parameters.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), facts["max_grad_norm"]))
        losses.append(loss.detach())
        optimizer.step()

    final = {name: parameter.detach() for name, parameter in parameters.items()}
    yield compare_within("training.losses", torch.stack(losses), golden["losses"], LOSSES)
    yield compare_within("training.grad_norm", torch.stack(norms), golden["grad_norm_before_clip"], GRADIENTS)
    for name in facts["stored_params"]:
        yield compare_within(f"training.grad0.{name}", first[name], golden[f"grad0.{name}"], GRADIENTS)
        yield compare_within(f"training.delta.{name}", final[name] - start[name], golden[f"delta.{name}"], UPDATES)
        yield compare_within(f"training.final.{name}", final[name], golden[f"final.{name}"], UPDATES)
    # Some gradients are zero but for rounding, as of a bias before a norm. AdamW divides them by themselves: what comes
    # of that differs from one processor to the next, and with the recording itself.
    noise = {key for key, norm in facts["grad_norm_step0"].items() if norm < options["eps"] * first[key].numel() ** 0.5}
    updates = {key: norm for key, norm in facts["update_l2_after_last_step"].items() if key not in noise}
    for name, ours, facts_of, tolerance in (
        ("grad_norm_step0", first, facts["grad_norm_step0"], GRADIENTS),
        ("update_l2", {key: final[key] - start[key] for key in final}, updates, UPDATES),
    ):
        reference = torch.tensor(list(facts_of.values()))
        yield compare_within(
            f"training.{name}", torch.stack([ours[key].norm() for key in facts_of]), reference, tolerance
        )
