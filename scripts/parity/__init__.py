"""python -m scripts.parity GOLDENS: the app's own loaders and code against recordings of the original programs.

GOLDENS holds any of tuneavideo/, followyourpose/, tempofunk/ and modelscope/. Prints a line a check,
`name  max_abs_error  scale_of_reference  tolerance  ok|FAIL`; exits with 1 if a check fails and with 2 if there was
nothing to check.
"""

import argparse
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.settings import Settings
from scripts.parity.checks import Check
from scripts.parity.followyourpose import check_followyourpose
from scripts.parity.modelscope import check_modelscope
from scripts.parity.tempofunk import check_tempofunk
from scripts.parity.tuneavideo import check_tuneavideo

SYSTEMS: dict[str, Callable[[Path, Settings], Iterator[Check]]] = {
    "modelscope": check_modelscope,
    "tempofunk": check_tempofunk,
    "followyourpose": check_followyourpose,
    "tuneavideo": check_tuneavideo,
}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("goldens", type=Path)
    goldens = parser.parse_args(arguments).goldens
    threads = torch.get_num_threads()
    # As the recordings were made: the order of a sum is another with more threads, and AdamW makes whole steps of
    # gradients that are nothing but rounding.
    torch.set_num_threads(1)
    passed = []
    for system, check in SYSTEMS.items():
        if not (goldens / system).is_dir():
            print(f"# {system}: not in {goldens}")
        else:
            passed += _run(system, check, goldens / system)
    torch.set_num_threads(threads)
    print(f"# {sum(passed)} of {len(passed)} checks passed")
    return 2 if not passed else 0 if all(passed) else 1


def _run(system: str, check: Callable[[Path, Settings], Iterator[Check]], folder: Path) -> list[bool]:
    """Whether each check of `system` passed. A check that breaks off has failed."""
    passed = []
    with tempfile.TemporaryDirectory() as cache:  # so that the conversion itself is part of what is checked
        try:
            for result in check(folder, Settings(cache=Path(cache), hub=False)):
                result = replace(result, name=f"{system}/{result.name}")
                print(result, flush=True)
                passed.append(result.passed)
        except Exception:
            traceback.print_exc()
            print(f"{system}/broke_off nan nan nan FAIL")
            passed.append(False)
    return passed
