"""FollowYourPose: adapter, network in both modes, sampling, and what happens to skeletons before."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pipelines.cards import Source
from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.sources import source_of_folder
from pipelines.settings import Settings
from pipelines.systems import followyourpose, stable_diffusion
from pipelines.systems.diffusion import image_solver
from scripts.parity import inflated
from scripts.parity.checks import Check, compare_lists, compare_within, load, read, recorded

PIXELS = 1e-5  # of skeletons in [0, 1]


def check_followyourpose(folder: Path, settings: Settings) -> Iterator[Check]:
    source = source_of_folder(folder)
    unet = load(source, "inflated_unet", settings)
    if recorded(folder, "adapter"):
        yield from _adapter(folder, unet)
    if recorded(folder, "unet_forward"):
        yield from _forward(folder, unet)
    if recorded(folder, "pipeline"):
        yield from _pipeline(folder, source, unet, settings)
    if recorded(folder, "skeleton_preprocess"):
        yield from _preprocessing(folder)


def _adapter(folder: Path, unet: InflatedUNet) -> Iterator[Check]:
    golden = read(folder / "adapter.safetensors")
    features = followyourpose.pose_features(unet, golden["skeleton"])
    for level, feature in enumerate(features):
        yield compare_within(f"adapter.feature.{level}", feature, golden[f"feature.{level}"], inflated.FORWARD)


def _forward(folder: Path, unet: InflatedUNet) -> Iterator[Check]:
    golden = read(folder / "unet_forward.safetensors")
    sample, timestep, states = golden["sample"], golden["timestep"], golden["encoder_hidden_states"]
    without = EditingUNet(unet, states)(sample, timestep)
    yield compare_within("unet.output_train", without, golden["output_train"], inflated.FORWARD)
    features = followyourpose.pose_features(unet, golden["skeleton"])
    output, seen = inflated.Recorder(unet, states, pose_features=features).record(sample, timestep)
    yield compare_within("unet.output_sample", output, golden["output_sample"], inflated.FORWARD)
    yield from inflated.check_taps("unet", golden, seen, sample.shape[2])


def _pipeline(folder: Path, source: Source, unet: InflatedUNet, settings: Settings) -> Iterator[Check]:
    golden, facts = read(folder / "pipeline.safetensors"), json.loads((folder / "pipeline.json").read_text())
    tokenizer, encoder, schedule = (load(source, part, settings) for part in ("tokenizer", "text_encoder", "scheduler"))
    yield from inflated.check_texts(golden, facts, tokenizer, encoder)
    steps, guidance = facts["num_inference_steps"], facts["guidance_scale"]
    timesteps = image_solver("ddim", schedule, steps).timesteps
    yield compare_lists("pipeline.timesteps", timesteps, golden["timesteps"].tolist())
    states = stable_diffusion.encode([facts["negative_prompt"] or "", facts["prompt"]], tokenizer, encoder)
    features = followyourpose.pose_features(unet, golden["skeleton"])
    noise = golden["init_latents"]
    taken = followyourpose.sample(unet, states, noise, features, schedule, "ddim", steps, guidance)
    latents = torch.stack([step.latents for step in taken])
    for name, ours in (("step_latents", latents), ("final_latents", latents[-1])):
        yield compare_within(f"pipeline.{name}", ours, golden[name], inflated.FINAL_LATENTS)
    yield from inflated.check_video(golden, latents[-1], load(source, "vae", settings))


def _preprocessing(folder: Path) -> Iterator[Check]:
    """Drawn frames, of which every n-th is taken, brought to size with and without antialiasing."""
    golden = read(folder / "skeleton_preprocess.safetensors")
    facts = json.loads((folder / "skeleton_preprocess.json").read_text())
    top, down, left, right = (
        int(number) for number in re.search(r"(\d+)::(\d+), (\d+)::(\d+)", facts["tensors"]).groups()
    )
    for case, size in facts["cases"].items():
        frames = np.stack([_drawn(index, *size["source_hw"]) for index in size["indices"]])
        for ending in ("aa", "noaa"):
            ours = followyourpose.prepare_skeletons(frames, antialias=ending == "aa")
            means = ours.mean(dim=(0, 2, 3, 4))
            grid = ours[..., top::down, left::right]
            yield compare_within(f"skeletons.{case}.{ending}", grid, golden[f"{case}.{ending}"], PIXELS)
            yield compare_within(f"skeletons.{case}.{ending}.mean", means, golden[f"{case}.{ending}.mean"], PIXELS)


def _drawn(index: int, height: int, width: int) -> np.ndarray:
    """Frame `index` of the recorded clip, by the formula given with it."""
    y, x, channel = np.ogrid[:height, :width, :3]
    return ((7 * index + 3 * y + 5 * x * (channel + 1) + (x * y) // 17) % 256).astype(np.uint8)
