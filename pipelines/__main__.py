"""The command line: python -m pipelines text-to-video "a robot in blue waving on the beach" -o robot.mp4

Exit code 0 and the name of the file; 2 and one line for a request that can't be met; 1 and one line where the file
can't be written; 130 after Ctrl-C.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pipelines.catalog import CATALOG, SCHEDULERS, ModelCard, find
from pipelines.events import Progress, Result
from pipelines.settings import Settings
from pipelines.tasks import MAX_SEED, TextToVideo

OPTIONS = {  # settings of a task that the model has a default for
    "frames": "how many frames",
    "width": "pixels",
    "height": "pixels",
    "fps": "frames a second",
    "steps": "denoising steps",
    "guidance": "how strongly to follow the prompt; 1 or less: not at all",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message} (See: python -m pipelines --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command in `arguments` and returns the exit code."""
    warnings.simplefilter("ignore")  # what libraries want to tell their developers
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
    video.add_argument("--negative", default=None, metavar="PROMPT", help="what to keep out")
    video.add_argument("--seed", type=_number, help="the same seed makes the same video; by default a random one")
    for name, help in OPTIONS.items():
        video.add_argument(f"--{name}", type=_number, metavar="N", help=help)
    video.add_argument("--scheduler", help=", ".join(SCHEDULERS))
    video.add_argument("-o", "--output", type=Path, metavar="FILE.mp4", help="by default a new name among the data")
    models = commands.add_parser("models", help="list the models")
    models.set_defaults(run=_models)
    return parser


def _text_to_video(chosen: argparse.Namespace, settings: Settings) -> int:
    card = _card(chosen.model or settings.model)
    given = {name: getattr(chosen, name) for name in (*OPTIONS, "scheduler")} | {"negative_prompt": chosen.negative}
    given = {name: value for name, value in given.items() if value is not None}
    seed = secrets.randbelow(MAX_SEED + 1) if chosen.seed is None else chosen.seed
    task = TextToVideo.for_model(card, chosen.prompt, seed, **given)
    path = _output(chosen.output)

    from pipelines.backend import LOADING, Pace, make, new_name
    from pipelines.manager import ModelManager

    pressed = _remember_control_c()
    pace = Pace({})

    def tell(event: Progress) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        _show(pace.estimate(event))

    models = ModelManager({card.name: card}, settings)
    models.on_progress = lambda done, total: tell(Progress(LOADING, done, total))
    with closing(make(task, models, path or new_name(settings))) as events:
        for event in events:
            if isinstance(event, Progress):
                tell(event)
            elif isinstance(event, Result):
                _show(None)
                print(event.video)
    return 0


def _remember_control_c() -> threading.Event:
    """An event that Ctrl-C sets, beside raising KeyboardInterrupt, which some libraries swallow while they load."""
    pressed = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return pressed


def _models(chosen: argparse.Namespace, settings: Settings) -> int:
    from pipelines.sources import availability

    descriptions = (
        f"{card.name}: {card.title}\n    {card.summary}\n    Needs: {card.needs}\n"
        f"    Here: {availability(card, settings) or 'yes'}"
        for card in CATALOG.values()
    )
    print("\n\n".join(descriptions))
    return 0


def _card(model: str) -> ModelCard:
    """The model of that name, or else in that folder."""
    if model in CATALOG or not Path(model).is_dir():
        return find(model)
    from pipelines.sources import card_of_folder

    return card_of_folder(Path(model))


def _output(path: Path | None) -> Path | None:
    """`path` if a video can be written there; found out before the work and not after it."""
    if path is None:
        return None
    if path.suffix.lower() != ".mp4" or path.is_dir():
        raise ValueError(f"The output must be an .mp4 file, not {path}.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write to.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"The folder {path.parent} can't be written to.")
    return path


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


if __name__ == "__main__":
    sys.exit(main())
