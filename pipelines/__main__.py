"""The command line: python -m pipelines text-to-video "a robot in blue waving on the beach" -o robot.mp4

Exit code 0 and the name of the file; 2 and one line for a request that can't be met; 1 and one line where the file
can't be written; 130 after Ctrl-C. The file is long because the options of each command stand beside what it does.
"""

import argparse
import io
import json
import os
import secrets
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG, find, offered
from pipelines.common_settings import MAX_SEED
from pipelines.events import Progress, Result
from pipelines.pose_tasks import FindPoses
from pipelines.settings import Settings
from pipelines.task_settings import Choice, Text, Truth, settings_of
from pipelines.tasks import NOBODY, Edit, Finish, MadeByModel, PoseToVideo, TextToVideo, Tune, from_json

OF_FILES = (
    "prompt",
    "clip",
    "motion",
    "image",
    "mask",
    "reference",
    "tuned",
    "source",
)  # each command asks for these itself
FILES = ("image", "mask", "reference", "clip")  # that a video of a prompt may be made with
NEW_NAME = "by default a new name among the data"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message} (See: python -m pipelines --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command in `arguments` and returns the exit code."""
    warnings.simplefilter("ignore")  # what libraries want to tell their developers
    if isinstance(sys.stdout, io.TextIOWrapper):  # and not replaced by something else than a file
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that can't be printed is no failure
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    try:
        chosen = _parser().parse_args(arguments)
        return chosen.run(chosen, Settings.from_environment())
    except (ValueError, MemoryError) as error:
        return _complain(error, code=2)
    except OSError as error:
        return _complain(error, code=1)
    except KeyboardInterrupt:
        return _complain("Stopped.", code=130)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m pipelines", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    video = commands.add_parser("text-to-video", help="make a video of a prompt")
    video.set_defaults(run=_text_to_video)
    video.add_argument("prompt")
    video.add_argument("--model", metavar="NAME|FOLDER", help="a name that `models` lists, or a folder of weights")
    _add_settings(video, TextToVideo)
    _add_files(video, TextToVideo, *FILES)
    video.add_argument("-o", "--output", type=Path, metavar="FILE.mp4", help=NEW_NAME)
    poses = commands.add_parser(
        "pose-to-video",
        help="make a video whose dancer follows the poses of a clip",
        epilog="Without --fps it moves as fast as the clip.",
    )
    poses.set_defaults(run=_pose_to_video)
    poses.add_argument(
        "clip",
        metavar="CLIP",
        help="a clip, a skeleton video, OpenPose's JSON or a zip of it, or motion:NAME for a built-in motion",
    )
    poses.add_argument("prompt")
    poses.add_argument("--model", metavar="NAME|FOLDER", help="a name that `models` lists, or a folder of weights")
    poses.add_argument("--base", metavar="NAME|FOLDER", help="its Stable Diffusion, where that is not with it")
    _add_settings(poses, PoseToVideo)
    _add_files(poses, PoseToVideo, "reference")
    poses.add_argument("--tuned", type=Path, metavar="FOLDER", help="what `tune` wrote: who is in that clip dances")
    poses.add_argument("-o", "--output", type=Path, metavar="FILE.mp4", help=NEW_NAME)
    search = commands.add_parser("poses", help="find the people in a clip, and write their joints")
    search.set_defaults(run=_poses)
    search.add_argument("clip", type=Path, metavar="CLIP")
    _add_settings(search, FindPoses)
    search.add_argument("-o", "--output", type=Path, metavar="FILE.json", required=True)
    tune = commands.add_parser("tune", help="tune on a clip, to edit it with other words")
    tune.set_defaults(run=_tune)
    tune.add_argument("clip", type=Path)
    tune.add_argument("prompt", help="what the clip shows")
    tune.add_argument("--model", metavar="NAME|FOLDER", help="a Stable Diffusion 1.x or 2.x to start from")
    _add_settings(tune, Tune)
    tune.add_argument("-o", "--output", type=Path, metavar="FOLDER", required=True, help="for the tuned model")
    edit = commands.add_parser("edit", help="edit a tuned clip with other words")
    edit.set_defaults(run=_edit)
    edit.add_argument("tuned", type=Path, metavar="FOLDER", help="what `tune` wrote, or a published tuned model")
    edit.add_argument("prompt")
    edit.add_argument("--model", metavar="NAME|FOLDER", help="the base, where that is a folder or not with it")
    _add_settings(edit, Edit)
    edit.add_argument("-o", "--output", type=Path, metavar="FILE.mp4", help=NEW_NAME)
    finish = commands.add_parser("finish", help="make a video larger, smoother or both")
    finish.set_defaults(run=_finish)
    finish.add_argument("video", type=Path, metavar="VIDEO")
    _add_settings(finish, Finish)
    finish.add_argument("-o", "--output", type=Path, metavar="FILE.mp4", help=NEW_NAME)
    models = commands.add_parser("models", help="list the models")
    models.set_defaults(run=_models)
    helps = {"drain": "have a device of the app take no further job", "undrain": "have it take jobs again"}
    for name, help in helps.items():
        command = commands.add_parser(name, help=help)
        command.set_defaults(run=_drain, drained=name == "drain")
        command.add_argument("device", type=int, help="its number, as “This machine” on the page has it")
    return parser


def _add_settings(parser: argparse.ArgumentParser, task: type) -> None:
    """Adds an option for every setting of `task` that a person may set."""
    for name, setting in settings_of(task).items():
        if name in OF_FILES or not setting.asked:
            continue
        flag, help = setting.flag or f"--{name.replace('_', '-')}", setting.help
        match setting:
            case Truth(default=True):
                parser.add_argument(
                    flag, dest=name, action="store_const", const=False, help=f"turn off “{setting.label}”"
                )
            case Truth():
                parser.add_argument(flag, dest=name, action="store_const", const=True, help=help)
            case Choice(choices=choices):
                parser.add_argument(flag, dest=name, help=f"{help} One of: {', '.join(choices)}.")
            case Text():
                parser.add_argument(flag, dest=name, metavar="TEXT", help=help)
            case _:
                parser.add_argument(flag, dest=name, type=_number, metavar="N", help=help)


def _add_files(parser: argparse.ArgumentParser, task: type, *names: str) -> None:
    """Adds an option for a file for each of these settings of `task`."""
    for name in names:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=settings_of(task)[name].help)


def _given(chosen: argparse.Namespace, task: type) -> dict[str, object]:
    """The settings of `task` that were set; the seed always: where it was not set, the default or a random one."""
    values = {name: getattr(chosen, name, None) for name in settings_of(task) if name not in OF_FILES}
    given = {name: value for name, value in values.items() if value is not None}
    seed = settings_of(task).get("seed")
    if seed is not None and "seed" not in given:
        given["seed"] = secrets.randbelow(MAX_SEED + 1) if seed.default is None else seed.default
    return given


def _text_to_video(chosen: argparse.Namespace, settings: Settings) -> int:
    card = _card(chosen.model or settings.model)
    files = _files(chosen, *FILES)
    task = TextToVideo.for_model(card, chosen.prompt, **_given(chosen, TextToVideo), **dict.fromkeys(files, NOBODY))
    return _run(task, [card], settings, _output(chosen.output, *files.values()), **files)


def _files(chosen: argparse.Namespace, *names: str) -> dict[str, Path]:
    """Those of the files that were named."""
    named = {name: file for name in names if (file := getattr(chosen, name)) is not None}
    return {name: _input(file, name) for name, file in named.items()}


def _pose_to_video(chosen: argparse.Namespace, settings: Settings) -> int:
    base = chosen.base and _card(chosen.base, kind="edit")
    card = _card(chosen.model or next(iter(offered("pose-to-video"))), base, "pose-to-video")
    given = _given(chosen, PoseToVideo)
    kind, _, motion = chosen.clip.partition(":")
    inputs: dict[str, Any] = {} if kind == "motion" else {"clip": Path(chosen.clip)}
    given |= {"clip": NOBODY} if inputs else {"motion": motion}
    if chosen.tuned:
        inputs["tuned"], given["tuned"] = chosen.tuned, NOBODY
    if reference := _files(chosen, "reference"):
        inputs, given = inputs | reference, given | {"reference": NOBODY}
    task = PoseToVideo.for_model(card, chosen.prompt, **given)
    if "clip" in inputs:
        inputs["clip"] = _input(inputs["clip"], "clip")
    from pipelines.media import clips, measuring
    from pipelines.poses import openpose_json
    from pipelines.serving import clip_storage

    if task.sound and "clip" not in inputs:
        raise ValueError(clips.SILENT)
    path = _output(chosen.output, *inputs.values(), *(chosen.tuned.glob("*") if chosen.tuned else ()))
    if "clip" in inputs and not openpose_json.is_keypoints(inputs["clip"]):
        inputs["measured"] = measuring.measure(inputs["clip"], settings)
    if chosen.fps is None:
        fps = clip_storage.pace(task, inputs.get("clip"), inputs.get("measured"))
        task = replace(task, fps=min(max(fps, card.limits.fps.low), card.limits.fps.high))
    cards = [card, base or find(card.tuned_from)] if chosen.tuned else [card]
    return _run(task, cards, settings, path, **inputs)


def _poses(chosen: argparse.Namespace, settings: Settings) -> int:
    task = FindPoses.of(clip=NOBODY, **_given(chosen, FindPoses))
    clip = _input(chosen.clip, "clip")
    path = _output(chosen.output, clip, suffix=".json")
    from pipelines.media import video
    from pipelines.models.manager import ModelManager
    from pipelines.poses.search import search

    pressed = _remember_control_c()
    with closing(search(task, ModelManager({}, settings), clip)) as events:
        while True:
            try:
                event = next(events)
            except StopIteration as finished:
                found = finished.value
                break
            if pressed.is_set():
                raise KeyboardInterrupt
            _show(event)
    _show(None)
    assert path is not None  # --output is required
    with video.whole(path) as temporary:
        temporary.write_text(found.text)
    print(path)
    print(f"{found.facts['people']} at most: {found.facts['origin']}.", file=sys.stderr)
    return 0


def _tune(chosen: argparse.Namespace, settings: Settings) -> int:
    card = _card(chosen.model or next(iter(offered("edit"))), kind="edit")
    task = Tune.for_model(card, chosen.prompt, clip=NOBODY, **_given(chosen, Tune))
    clip, folder = _input(chosen.clip, "clip"), chosen.output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"The output must be a folder, and {folder} is a file.")
    folder.mkdir(parents=True, exist_ok=True)
    path = _output(folder / "clip.mp4", clip)
    from pipelines.media.clips import SOUND
    from pipelines.models.convert.tuned import FILE

    for name in (SOUND, FILE, "tuned.json"):
        _keep(folder / name, clip)
    return _run(task, [card], settings, path, shown=folder, clip=clip, folder=folder)


def _edit(chosen: argparse.Namespace, settings: Settings) -> int:
    given, inputs = _given(chosen, Edit), {}
    if (chosen.tuned / "tuned.json").is_file():
        facts = json.loads((chosen.tuned / "tuned.json").read_text("utf-8"))
        card = _card(chosen.model or facts["task"]["model"], kind="edit")
        given |= {name: facts[name] for name in ("frames", "width", "height", "fps")} | {"tuned": NOBODY}
        inputs["tuned"] = chosen.tuned
    else:
        card = _card(str(chosen.tuned), chosen.model and _card(chosen.model, kind="edit"), "edit")
    task = Edit.for_model(card, chosen.prompt, **given)
    return _run(task, [card], settings, _output(chosen.output, *chosen.tuned.glob("*")), **inputs)


def _finish(chosen: argparse.Namespace, settings: Settings) -> int:
    task = Finish.for_video(None, NOBODY, **_given(chosen, Finish))
    source = _input(chosen.video, "video")
    path = _output(chosen.output, source)
    from pipelines.media import uploads

    with suppress(ValueError):  # it is of another app, or of a model that is not in the catalog
        said = from_json(uploads.read_comment(source, settings))
        of = said.of if isinstance(said, Finish) else said
        task = Finish.for_video(of, task.source, task.upscale, task.interpolate)
    return _run(task, [], settings, path, source=source)


def _run(
    task: MadeByModel | Finish,
    cards: Sequence[ModelCard],
    settings: Settings,
    path: Path | None,
    shown: Path | None = None,
    **inputs: Any,
) -> int:
    """Runs `task` with the models that it wants, and prints what it wrote: `shown` or else the video."""
    from pipelines.serving.runner import LOADING, Pace, make

    pressed = _remember_control_c()
    pace = Pace({})

    def tell(event: Progress) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        _show(pace.estimate(event))

    path = path or _new_name(settings)
    if isinstance(task, Finish):
        from pipelines.systems import finish

        making = finish.make(task, path, settings, **inputs)
    else:
        from pipelines.models.manager import ModelManager

        models = ModelManager({card.name: card for card in cards}, settings)
        models.on_progress = lambda done, total: tell(Progress(LOADING, done, total))
        making = make(task, models, path, **inputs)
    with closing(making) as events:
        for event in events:
            if isinstance(event, Progress):
                tell(event)
            elif isinstance(event, Result):
                _show(None)
                if os.environ.get("LOCAL_RANK", "0") == "0":  # `accelerate launch` starts a process a device
                    print(shown or event.video)
                    if tempo := event.facts.get("sound_tempo"):
                        print(f"The sound is played {tempo:.3g} times as fast, as the video is.", file=sys.stderr)
    return 0


def _remember_control_c() -> threading.Event:
    """An event that Ctrl-C sets, beside raising KeyboardInterrupt, which some libraries swallow while they load."""
    pressed = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return pressed


def _drain(chosen: argparse.Namespace, settings: Settings) -> int:
    from pipelines.serving.drained import Drained
    from pipelines.serving.status import devices

    # How many a cluster has, only the app knows.
    names = ["of the cluster"] * chosen.device if settings.ray else devices(settings)
    drained = Drained(settings)
    if not 1 <= chosen.device <= len(names):
        raise ValueError(f"There is no device {chosen.device}: the app has {len(names)}, by MARIONETTE_DEVICE.")
    slot = str(chosen.device - 1)
    if chosen.drained:
        drained.add(slot)
        print(f"Device {chosen.device} ({names[chosen.device - 1]}) ends what it is at, and takes no further job.")
    else:
        drained.discard(slot)
        print(f"Device {chosen.device} ({names[chosen.device - 1]}) takes jobs.")
    return 0


def _models(chosen: argparse.Namespace, settings: Settings) -> int:
    from pipelines.models.sources import availability

    descriptions = (
        f"{card.name}: {card.title}\n    {card.summary}\n    Needs: {card.needs}\n"
        f"    Here: {availability(card, settings) or 'yes'}"
        + "".join(
            f"\n    --lora {name}: {lora.title}. {availability(card, settings, name) or 'Here: yes'}"
            for name, lora in card.loras.items()
        )
        for card in CATALOG.values()
    )
    print("\n\n".join(descriptions))
    return 0


def _card(model: str, base: ModelCard | None = None, kind: str = "text-to-video") -> ModelCard:
    """The model of that name, or else in that folder; `base` has the parts that a tuned model lacks, `kind` is what it
    is for, and of which the names are told where there is no such model."""
    if model in CATALOG:
        return CATALOG[model]
    if not Path(model).is_dir():
        return find(model, offered(kind))
    from pipelines.models.folders import card_of_folder

    return card_of_folder(Path(model), base, kind)


def _input(path: Path, what: str) -> Path:
    """The file itself where `path` is a link to it: on one's own machine links lead where one wants."""
    if not path.is_file():
        raise ValueError(f"There is no {what} {path}.")
    return path.resolve()


def _output(path: Path | None, *inputs: Path, suffix: str = ".mp4") -> Path | None:
    """`path` if a file can be written there; found out before the work and not after it. No input is written over."""
    if path is None:
        return None
    if path.suffix.lower() != suffix or path.is_dir():
        article = "an" if suffix == ".mp4" else "a"
        raise ValueError(f"The output must be {article} {suffix} file, not {path}.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write to.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"The folder {path.parent} can't be written to.")
    _keep(path, *inputs)
    return path


def _keep(path: Path, *inputs: Path) -> None:
    """Raises ValueError where what is written to `path` would be written over one of the `inputs`."""
    if path.exists() and any(file.exists() and path.samefile(file) for file in inputs):
        raise ValueError(f"{path} is what is read, and would be lost. Choose another name for the output.")


def _number(text: str) -> int | float | str:
    """A number where `text` is one; else `text`, for the task to refuse in its own words."""
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() else value


def _show(event: Progress | None) -> None:
    """One line on the terminal that changes; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        return
    line = ""
    if event is not None:
        left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
        line = f"{event.stage}: {100 * event.step // max(event.total, 1)}%{left}"
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _complain(reason: object, code: int) -> int:
    _show(None)
    print(f"{reason}", file=sys.stderr)
    return code


def _new_name(settings: Settings) -> Path:
    """Where to write the next video: a name that nobody can guess."""
    return settings.data.absolute() / f"{time.strftime('%Y-%m-%d')}-{secrets.token_hex(12)}.mp4"


if __name__ == "__main__":
    sys.exit(main())
