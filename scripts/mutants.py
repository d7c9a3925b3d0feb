"""The table of scripts/mutate.py: small changes to the code that a test must notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    file: str
    old: str  # stands once in the file
    new: str
    tests: tuple[str, ...]  # of which at least one must fail


HAND = "tests/test_hand_composed.py"
TEXT, FUNK, POSE, TUNING, EDITS = (
    f"{HAND}::test_{name}" for name in ("modelscope", "tempofunk", "followyourpose", "tuning", "edits")
)
SYSTEMS = {"modelscope": TEXT, "tempofunk": FUNK, "followyourpose": POSE, "tuneavideo": EDITS}


def _in(system: str, name: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(
        f"{system}: {name}", f"pipelines/systems/{system}.py", old, new, tests or (SYSTEMS.get(system, TUNING),)
    )


def _of(file: str, name: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, f"pipelines/{file}", old, new, tests)


CLIP_NOISE = "noise = draw_noise((1, channels, task.frames, height, width), task.seed)"
CHANNELS = "(1, channels, task.frames, height, width)"
COUNTED = "tests/test_tempofunk.py", "tests/test_modelscope.py"
UPLOADS, COLOUR, CLIPS = "tests/test_uploads.py", "tests/test_colour.py", "tests/test_clips.py"
KEYPOINTS, TRACKING, DETECTION = "tests/test_keypoints.py", "tests/test_tracking.py", "tests/test_pose_detection.py"
FOLLOWED, DIFFUSION, TUNE = "tests/test_followyourpose.py", "tests/test_diffusion.py", "tests/test_tuning.py"
LONG, WAN, VACE = "tests/test_windows.py", "tests/test_wan.py", "tests/test_wan_vace.py"
JOBS, DATA, BITES = "tests/test_jobs.py", "tests/test_trust_data.py", "tests/test_bites.py"

# fmt: off  a mutant a line
MUTANTS: tuple[Mutant, ...] = (
    # Prompts
    _in("modelscope", "prompts swapped", "[task.negative_prompt, task.prompt]", "[task.prompt, task.negative_prompt]"),
    _in("tempofunk", "prompts swapped", "[task.negative_prompt, task.prompt]", "[task.prompt, task.negative_prompt]"),
    _in(
        "followyourpose",
        "prompts swapped",
        "[task.negative_prompt, task.prompt]",
        "[task.prompt, task.negative_prompt]",
    ),
    _in("tuneavideo", "prompts swapped", "task.negative_prompt, task.prompt]", "task.prompt, task.negative_prompt]"),
    _in("tuneavideo", "inverted under the prompt", "all_states[:1], all_states[1:]", "all_states[2:], all_states[1:]"),
    _in("modelscope", "no negative prompt", "[task.negative_prompt, task.prompt] if", '["", task.prompt] if'),
    _in("tempofunk", "the first image unguided by its own", "else task.image_guidance", "else task.guidance"),
    _in("tuning", "tuned under no caption", "EditingUNet(unet, caption.to", "EditingUNet(unet, empty.to"),
    # Seeds
    _in("modelscope", "seed ignored", f"{CHANNELS}, task.seed)", f"{CHANNELS}, 7)"),
    _in("tempofunk", "seed ignored", f"{CHANNELS}, task.seed)", f"{CHANNELS}, 7)"),
    _in(
        "tempofunk",
        "seed of the first image ignored",
        "(1, channels, height, width), task.seed",
        "(1, channels, height, width), 7",
    ),
    _in("followyourpose", "seed ignored", f"{CHANNELS}, task.seed)", f"{CHANNELS}, 7)"),
    _in("tuneavideo", "seed ignored", f"{CHANNELS}, task.seed)", f"{CHANNELS}, 7)"),
    _in("tuning", "seed ignored", "(task.seed * 2**20 + step)", "(7 * 2**20 + step)"),
    _in("tuning", "the same noise and timestep at every step", "(task.seed * 2**20 + step)", "(task.seed * 2**20)"),
    _in(
        "tuning", "the same noise as the sample's", "for _ in range(2))", "for _ in range(1))\n            noise = draw"
    ),
    # Windows of a long video
    _in(
        "prediction",
        "a window follows the poses of the first",
        "slice(part.start, part.stop)",
        "slice(0, len(part))",
        LONG,
    ),
    _in(
        "prediction",
        "the ends of a window count as its middle",
        "torch.minimum(slope, slope.flip(0))",
        "slope**0",
        LONG,
    ),
    _in(
        "prediction",
        "pictures before a video are frames of it",
        "range(before + part.start, before + part.stop)",
        "range(part.start, part.stop)",
        LONG,
    ),
    _in(
        "wan_vace",
        "all windows follow the first poses",
        "video[:, :, frames]",
        "video[:, :, : frames.stop - frames.start]",
        VACE,
    ),
    _in("tuning", "each step learns the beginning", "slice(first, first + window", "slice(0 * first, window", TUNE),
    _in("tuneavideo", "a long clip is inverted as a whole", "frames: predict, window)", "frames: predict, 0)", TUNE),
    _of("windows.py", "windows that hardly overlap", "OVERLAP = 1 / 3", "OVERLAP = 0", LONG),
    _in("wan", "windows of as many latents as frames", "latent_frames(shortcuts.window)", "shortcuts.window", WAN),
    _of(
        "serving/estimate.py", "what windows share is not counted", "seen(task.frames, ", "seen(task.frames, 0 * ", LONG
    ),
    # Numbers of a task
    _in("modelscope", "steps off by one", "task.scheduler, task.steps,", "task.scheduler, task.steps + 1,"),
    _in("followyourpose", "steps off by one", "task.scheduler, task.steps,", "task.scheduler, task.steps + 1,"),
    _in("modelscope", "scheduler ignored", "schedule, task.scheduler,", 'schedule, "dpm++",'),
    _in("tuneavideo", "scheduler ignored", "(schedule), task.scheduler,", '(schedule), "pndm",'),
    _in("followyourpose", "guidance ignored", "task.steps, task.guidance, slices,", "task.steps, 3.0, slices,"),
    _in("tempofunk", "guidance ignored", "task.steps, task.guidance, slices,", "task.steps, 3.0, slices,"),
    _in("followyourpose", "strength of the poses ignored", "ready, task.strength)", "ready)"),
    _in("tempofunk", "the mask forgotten", "unfollowed = latent_mask", "_ = latent_mask"),
    _in("tempofunk", "the hint is a sample", "latent_dist.mean\n    if", "latent_dist.sample()\n    if"),
    _in("tuning", "learning rate ignored", "parameters.values(), task.learning_rate", "parameters.values(), 1e-3"),
    _in("tuning", "all is trained", 'if which == "all" else ("mid_block", "up_blocks")', "if which else ()"),
    _in("tuning", "gradients unclipped", "accelerator.clip_grad_norm_(parameters.values(), 1.0)", "pass", TUNING, TUNE),
    _in("tuning", "no deviation in the sample", "mean + deviation * draw", "mean", TUNING),
    _in(
        "tuning",
        "resumed without moments",
        "if tuned.moments:\n            mean_",
        "if False:\n            mean_",
        TUNE,
    ),
    # Edits
    _in("tuneavideo", "an edit starts from the clip", "blend(trajectory[-1]", "blend(trajectory[0]"),
    _in("tuneavideo", "strength ignored", "latents, task.strength)", "latents, 0.0)"),
    _in("tuneavideo", "a blend without the variance of noise", "(1 - strength**2) ** 0.5", "(1 - strength)"),
    _in("tuneavideo", "the tuned parameters stay off", "setattr(unet.get_submodule(module), leaf, new)", "pass"),
    _in(
        "tuneavideo",
        "the tuned parameters stay on",
        "setattr(unet.get_submodule(module), leaf, parameter)",
        "pass",
        TUNE,
    ),
    _in("tuneavideo", "another base is taken", 'if tuned.facts.get("base") != base:', "if False:", TUNE),
    # The loop
    _in("diffusion", "guidance the wrong way", "unconditional + guidance *", "unconditional - guidance *", DIFFUSION),
    _in("diffusion", "noise of the device", 'torch.Generator("cpu").manual_seed(seed)', "None", DIFFUSION),
    _in(
        "diffusion",
        "inversion asks at the step before",
        "noise = predict(latents, timestep)\n        denoised = estimate(noise, latents, float(alphas[max",
        "noise = predict(latents, max(timestep - stride, 0))\n        denoised = estimate(noise, latents, float(alphas[max",
        EDITS,
    ),
    _in(
        "diffusion",
        "a step from the estimate",
        "latents = solver.step(prediction, timestep, latents)",
        "latents = solver.step(prediction, timestep, denoised)",
        TEXT,
    ),
    _in(
        "diffusion",
        "a velocity is taken for noise",
        "predict(latents, timestep) + (1 - alpha) ** 0.5 * latents",
        "predict(latents, timestep)",
        DIFFUSION,
    ),
    _in("stable_diffusion", "text cut at 76 tokens", "min(MAX_TOKENS, encoder", "min(MAX_TOKENS - 1, encoder", TEXT),
    _in(
        "stable_diffusion",
        "latents unscaled",
        "latents[0].transpose(0, 1) / vae.config.scaling_factor",
        "latents[0].transpose(0, 1)",
        TEXT,
    ),
    _in("stable_diffusion", "a black video passes", "if not 0 < spread(step.latents) < math.inf", "if False", *COUNTED),
    # Poses
    _of(
        "poses/pose_sequence.py",
        "a cache key without the crop",
        "    asked += (task.left, task.right, task.top, task.bottom)\n",
        "",
        BITES,
    ),
    _of(
        "poses/pose_sequence.py",
        "a cache key without the stride",
        "task.frames, task.stride)\n    asked",
        "task.frames)\n    asked",
        BITES,
    ),
    _of("poses/pose_sequence.py", "gaps always filled", "if task.gaps:", "if True:", BITES, FOLLOWED),
    _of(
        "poses/pose_sequence.py",
        "everybody though one was chosen",
        "keypoints.choose(everybody, task.person)",
        "keypoints.choose(everybody, None)",
        BITES,
        FOLLOWED,
    ),
    _of(
        "poses/keypoints.py",
        "smoothing ignores confidence",
        "np.tensordot(kernel, positions * confidence, 1)",
        "np.tensordot(kernel, positions, 1)",
        BITES,
        KEYPOINTS,
    ),
    _of(
        "poses/keypoints.py",
        "smoothing weighs missing joints",
        "weights = np.tensordot(kernel, confidence, 1)",
        "weights = np.tensordot(kernel, (confidence > 0) * 1.0, 1)",
        BITES,
        KEYPOINTS,
    ),
    _of("poses/keypoints.py", "half a pixel's shift in placing", "(wide - 1) / 2", "wide / 2", KEYPOINTS),
    _of(
        "poses/keypoints.py",
        "the crop keeps joints beside it",
        "joints[(x < -0.5) | (x > width - 0.5)",
        "joints[(x < -0.5) | (x > 2 * width)",
        BITES,
        KEYPOINTS,
    ),
    _of(
        "poses/openpose.py",
        "half a pixel's shift of the detector",
        "found[joint] = (x + 0.5) * CELL / FINE - 0.5,",
        "found[joint] = (x + 0.5) * CELL / FINE,",
        BITES,
        DETECTION,
    ),
    _of(
        "poses/tracking.py",
        "clothes ignored",
        "LOOK_WEIGHT * float(np.nanmean(apart))",
        "0 * float(np.nanmean(apart))",
        TRACKING,
    ),
    _of("poses/tracking.py", "pace ignored", "* min(away, GUESS_SECONDS) *", "* 0 *", TRACKING),
    # Sound and clips
    _of(
        "media/uploads.py",
        "sound ignores where the clip's own time begins",
        '["-ss", f"{float(measured.start) + start:.6f}"]',
        '["-ss", f"{start:.6f}"]',
        BITES,
        COLOUR,
    ),
    _of(
        "media/uploads.py",
        "sound begins at 0",
        '["-ss", f"{float(measured.start) + start:.6f}"]',
        '["-ss", f"{float(measured.start):.6f}"]',
        COLOUR,
    ),
    _of(
        "media/uploads.py",
        "sound that comes late comes at once",
        "aresample=async=1:first_pts=0",
        "aresample=async=1",
        COLOUR,
    ),
    _of(
        "media/uploads.py", "frames half a frame early", "(first + 0.5) / clip.fps", "(first - 0.5) / clip.fps", UPLOADS
    ),
    _of("media/clips.py", "across and down swapped", "task.across, task.down", "task.down, task.across", CLIPS),
    _of("media/clips.py", "stride ignored", "task.frames,\n        task.stride,", "task.frames,\n        1,", CLIPS),
    # Serving
    _of(
        "serving/tidy.py",
        "uploads of waiting jobs are tidied away",
        "name in needed or is_new(path)",
        "is_new(path)",
        BITES,
    ),
    _of("serving/tidy.py", "what is held is deleted", "if not thing.held and", "if", BITES),
    _of(
        "serving/clip_storage.py",
        "clips of others",
        'if owner != facts.pop("owner"):',
        'if not facts.pop("owner"):',
        CLIPS,
    ),
    _of(
        "serving/fairness.py",
        "an address counts for nothing",
        "by_address.get(place.address, 0.0) / OWNERS",
        "0.0",
        JOBS,
    ),
    _of("serving/fairness.py", "seconds count for ever", "WINDOW = 3600.0", "WINDOW = 3.6e9", JOBS),
    _of(
        "serving/zerogpu.py",
        "lent seconds without a margin",
        "math.ceil(1.25 * seconds)",
        "math.ceil(seconds)",
        BITES,
    ),
    _of("serving/zerogpu.py", "a tuning uses all that is lent", "seconds * WORKED / PIECE", "seconds", BITES),
    _of(
        "serving/owners.py",
        "any id is an account's",
        "return hmac.compare_digest(",
        "return True or hmac.compare_digest(",
        "tests/test_trust_owners.py",
        BITES,
    ),
    Mutant("any string as a visitor's id", "ui/visitor.py", 're.fullmatch("[0-9a-f]{32}", value)', "value", (BITES,)),
    # Tasks and models
    _of(
        "task_settings.py",
        "an edit's strength not kept",
        "return {name: setting.check(values[name], card) for name, setting in settings.items()}",
        'return {name: setting.check(values[name], card) for name, setting in settings.items()} | {"strength": 0.0}',
        "tests/test_task_settings.py",
    ),
    _of(
        "models/memory.py",
        "counts of one shape stand for all",
        "key = (hashlib.sha256(looks.encode()).digest(), *numbers)",
        "key = (hashlib.sha256(looks.encode()).digest(),)",
        BITES,
    ),
    _of(
        "models/memory.py",
        "counts of one network stand for all",
        "looks = repr((type(network).__qualname__, network.config, shapes))",
        'looks = ""',
        BITES,
    ),
)
# fmt: on
