"""python -m scripts.attack [--url http://…] [--short] [--only NAME[:CASE]]: attacks an app and prints what fell.

Without --url it starts an app of its own, with its data in a temporary folder and on a port that is free. Exit 1 if
anything fell. --only names an attack, and after a colon a part of the names of the cases to be tried.
"""

import argparse
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from scripts.attack import calls, endurance, files, load, ownership, pages, starts, target, watch, worker_kills
from scripts.attack.arena import SHARED, Arena
from scripts.attack.report import Case, Skip, Tally, slowness, table
from scripts.attack.target import OwnApp, Target

Attack = Callable[[Arena], Iterator[Case | Skip]]
# On the app that all share. What fills its queue comes last.
ON_ANY: dict[str, Attack] = {
    "honest-files": files.honest,
    "hostile-files": files.hostile,
    "forged-files": files.forged,
    "published-calls": calls.published,
    "hidden-calls": calls.hidden,
    "bodies": calls.bodies,
    "routes": calls.routes,
    "served-files": ownership.served,
    "shared-video": ownership.shared,
    "told-paths": ownership.told,
    "strangers": ownership.strangers,
    "foreign-pages": pages.foreign,
    "rebinding": pages.rebinding,
    "log": load.logs,
    "sessions": load.sessions,
    "cancelled-jobs": load.cancelled,
    "fresh-ids": load.fresh_ids,
}
# With apps of their own, which they end, damage and start again.
ALONE: dict[str, Attack] = {
    "signed-in": ownership.signed_in,
    "password": pages.password,
    "kills": endurance.kills,
    "worker-kills": worker_kills.own_workers,
    "ray-worker-kills": worker_kills.ray_workers,
    "damaged-table": endurance.damage,
    "wrong-clock": endurance.clock,
    "full-disk": endurance.disk,
    "sigterm": endurance.ending,
    "starts": starts.starts,
    "weights": endurance.weights,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.attack", description=__doc__)
    parser.add_argument("--url", help="of an app that runs already; without it, one is started")
    parser.add_argument("--short", action="store_true", help="a share of everything, in about a minute")
    parser.add_argument("--only", default="", metavar="NAME[:CASE]", help=f"one of {', '.join(ON_ANY | ALONE)}")
    given = parser.parse_args(arguments)
    attack, _, case = given.only.partition(":")
    if attack and attack not in ON_ANY | ALONE:
        parser.error(f"there is no attack called {attack!r}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no app is left behind
    tallies = carry_out(given.url, given.short, attack, case)
    print(table(tallies))
    return 1 if any(tally.fallen for tally in tallies) else 0


def carry_out(url: str | None = None, short: bool = False, attack: str = "", case: str = "") -> list[Tally]:
    """Attacks the app at `url`, or one of our own, with everything or with one `attack`; a line of the table each."""
    warnings.filterwarnings("ignore", module="zipfile")  # twins in a zip are meant
    on_any = {name: one for name, one in ON_ANY.items() if attack in ("", name)}
    alone = {name: one for name, one in ALONE.items() if attack == name or not (attack or short or url)}
    tallies = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attack-"))).resolve()
        if on_any:
            tallies += _on_shared(stack, folder, url, short, on_any, case)
        for name, one in alone.items():
            arena = Arena(folder, Target("http://127.0.0.1:9"), short)
            tallies.append(_attacked(name, one(arena), case))
    return tallies


def _on_shared(
    stack: ExitStack, folder: Path, url: str | None, short: bool, attacks: dict[str, Attack], case: str
) -> list[Tally]:
    """Carries out the `attacks` on one app, whose event loop is watched meanwhile."""
    app = Target(url) if url else stack.enter_context(target.running(folder / "shared", variables=SHARED))
    arena = Arena(folder, app, short)
    watching = watch.Watch(app)
    tallies = []
    try:
        for name, one in attacks.items():
            tallies.append(_attacked(name, one(arena), case))
            if arena.own and _gone(arena.own):
                tallies[-1].fallen.append(("the app", f"has ended: {arena.own.log[-600:]!r}"))
                break
    finally:
        looks = watching.stop()
    tallies.append(watch.tally(looks, tallies))
    if arena.own and arena.own.alive() and not case:
        tallies.append(_ended(arena))
    return tallies


def _gone(app: OwnApp) -> bool:
    """Whether the app has ended, or is about to."""
    if app.alive() and app.ask("GET", watch.LIGHT).status == 0:
        time.sleep(endurance.END_SECONDS)
    return not app.alive()


def _ended(arena: Arena) -> Tally:
    """The shared app is told to end, after all that was done to it."""
    row = Tally("end")

    def end() -> str | None:
        took = arena.own.end()
        return f"took {took:.0f} s after SIGTERM" if took > endurance.END_SECONDS * slowness() else None

    row.carry_out(case for case in (Case("SIGTERM", end, patience=90),))
    return row


def _attacked(name: str, cases: Iterator[Case | Skip], case: str) -> Tally:
    began = time.monotonic()
    row = Tally(name)
    row.carry_out(cases, case)
    print(f"{name}: {row.tries} tries, {len(row.fallen)} fell, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
