"""What a Prometheus server may read of the app: how many, how long, how large; nothing of who wants what."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.serving.executor import Slot

Sample = tuple[Mapping[str, str], float]


@dataclass
class Counts:
    """What has happened since the app was started."""

    ended: Counter[str] = field(default_factory=Counter)  # jobs: "done", "failed" or "stopped"
    deaths: Counter[str] = field(default_factory=Counter)  # of workers: "memory" or "other"
    seconds: Counter[str] = field(default_factory=Counter)  # that the videos made took, by stage


def text(
    waiting: int,
    paused: int,
    running: Iterable[str],
    slots: Iterable[Slot],
    drained: Container[str],
    counts: Counts,
    well: bool,
) -> str:
    """In Prometheus' text format (version 0.0.4). `running` names the slots that are at work, `drained` those that take
    no further jobs."""
    running, slots = set(running), list(slots)
    numbers = {"waiting": waiting, "paused": paused, "running": len(running)}
    jobs: list[Sample] = [({"state": state}, number) for state, number in numbers.items()]
    busy: list[Sample] = [({"worker": slot.name}, float(slot.name in running)) for slot in slots]
    idle: list[Sample] = [({"worker": slot.name}, float(slot.name in drained)) for slot in slots]
    ready: list[Sample] = [({"worker": slot.name}, float(slot.ready)) for slot in slots]
    held: list[Sample] = [
        ({"worker": slot.name, "device": one.device, "models": " ".join(one.models)}, one.bytes)
        for slot in slots
        for one in slot.models
    ]
    metrics = [
        _metric("ok", "gauge", "Whether videos can be made.", [({}, float(well))]),
        _metric("jobs", "gauge", "Jobs that have not ended.", jobs),
        _metric("jobs_ended_total", "counter", "Jobs that have ended.", _counted("state", counts.ended)),
        _metric("stage_seconds_total", "counter", "Seconds that videos took.", _counted("stage", counts.seconds)),
        _metric("worker_ready", "gauge", "Whether a worker is there, or is started when there is a job.", ready),
        _metric("worker_busy", "gauge", "Whether a worker is at work.", busy),
        _metric("worker_drained", "gauge", "Whether a worker takes no further job.", idle),
        _metric("worker_deaths_total", "counter", "Workers that died at work.", _counted("cause", counts.deaths)),
        _metric("model_bytes", "gauge", "Memory that models hold.", held),
    ]
    return "".join(metrics)


def _counted(label: str, counter: Counter[str]) -> list[Sample]:
    return [({label: name}, count) for name, count in sorted(counter.items())]


def _metric(name: str, kind: str, help: str, samples: Iterable[Sample]) -> str:
    name = f"marionette_{name}"
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        given = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{given}}} {value:g}" if given else f"{name} {value:g}")
    return "\n".join(lines) + "\n"


def _escaped(value: Any) -> str:
    return str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
