"""What finds people's joints in pictures: one table of every detector the app offers. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.cards import Source
from pipelines.catalog import ASSETS, MINIATURES, named
from pipelines.messages import said

AUTO = "auto"


@dataclass(frozen=True)
class Detector:
    """What finds people's joints in pictures (poses/detection.py)."""

    name: str
    title: str
    source: Source | None  # None where it has no weights of its own
    licence: str
    needs: str
    advice: str  # what to do where it finds nobody
    parts: tuple[str, ...] = ("body",)  # its networks


_BETTER_CLIP = said(
    "Choose a part of the clip in which somebody is to be seen from head to foot, larger and in better light, or "
    "another clip."
)

DETECTORS: Mapping[str, Detector] = {
    detector.name: detector
    for detector in (
        Detector(
            name=AUTO,
            title="People or drawn figures",
            source=None,
            licence="that of the detector it chooses",
            needs="Nothing: built in. Looks for people and drawn figures, and keeps the surer result.",
            advice=_BETTER_CLIP,
            parts=(),
        ),
        Detector(
            name="blazepose",
            title="BlazePose",
            source=Source(str(ASSETS / "detectors" / "blazepose")),
            licence="Apache 2.0: commercial use allowed",
            needs="Nothing: built in. For people, eight at most.",
            advice=_BETTER_CLIP,
            parts=("detector", "landmarks"),
        ),
        Detector(
            name="miniature-openpose",
            title="Paper theatre (built in)",
            source=Source(str(MINIATURES / "openpose")),
            licence="MIT, like this app",
            needs="Nothing: built in. For drawn figures.",
            advice=said("This detector knows only drawn figures such as this app's own. For people choose BlazePose."),
        ),
        Detector(
            name="openpose",
            title="OpenPose",
            source=Source("lllyasviel/Annotators", revision="982e7edaec38759d914a963c48c4726685de7d96"),
            licence="Carnegie Mellon University's, for research: not for commercial use",
            needs="A download of 209 MB; on a CPU about a second a frame.",
            advice=_BETTER_CLIP,
        ),
    )
}


def find_detector(name: object, detectors: Mapping[str, Detector] = DETECTORS) -> Detector:
    """The detector called `name`. Raises ValueError listing the names there are."""
    return named(name, detectors, said("There is no detector called {name}. Choose one of: {names}."))
