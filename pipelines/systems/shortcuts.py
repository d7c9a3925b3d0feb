"""What makes a job faster and changes its video: a LoRA, lower precision, cached features, guidance in an interval.

All of it is off unless the task asks for it, and every video tells which of it was used, as its "approximations".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.cards import Lora
from pipelines.models import lora
from pipelines.models.lora import LowRank, Network
from pipelines.models.networks import caching
from pipelines.systems.prediction import Shortcuts

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager
    from pipelines.tasks import Edit, PoseToVideo, TextToVideo


@dataclass(frozen=True)
class Plan:
    """How a task's network is to be computed."""

    part: str  # of the model: the network, in the precision that is wanted
    approximations: str  # for the facts of the video
    sampling: Shortcuts
    lora: Lora | None = None
    changes: Mapping[str, LowRank] = field(default_factory=dict)  # of `lora`
    bytes: int = 0  # that `network` takes beside the leased one

    def network(self, leased: Network) -> Network:
        """The leased network, or what `lora` makes of it; the leased one stays as it is."""
        return lora.merged(leased, self.changes) if self.changes else leased

    def schedule(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The checkpoint's scheduler config, with what `lora` wants of its sampler."""
        return {**config, "timestep_scaling": self.lora.timestep_scaling} if self.lora else config


def plan(task: "TextToVideo | PoseToVideo | Edit", models: "ModelManager", part: str = "unet") -> Plan:
    """How `task` wants the network `part` of its model. Downloads its LoRA where that is on the Hub only.

    Raises ValueError, in words for the person who asked, where the LoRA can't be had or doesn't fit.
    """
    told = []
    faster = models.faster(part) if task.precision == "fast" else part
    if faster != part:
        told.append("bfloat16 arithmetic")
    if task.caching > 1 and task.steps > caching.WHOLE:
        told.append(f"deep features of every {task.caching} steps computed once (DeepCache)")
    if (task.guided_from, task.guided_until) != (0, 1) and task.guidance > 1:
        told.append(f"guidance only from {task.guided_from:g} to {task.guided_until:g} of the way")
    card = models.card(task.model)
    size = task.frames, task.width, task.height
    window = card.limits.window_of(*size)
    if window:
        told.append(f"{len(card.limits.windows_of(*size))} windows of {window} frames, averaged where they overlap")
    sampling = Shortcuts(window, task.caching, task.guided_from, task.guided_until)
    chosen = card.loras.get(task.lora)
    if chosen is None:
        return Plan(faster, "; ".join(told) or "none", sampling)
    told.append(f"{chosen.source.location} ({chosen.title})")
    empty = models.empty(f"{task.model}/{part}")
    changes = lora.load(chosen, empty, models.settings, models.on_progress)
    size = lora.merged_bytes(models.empty(f"{task.model}/{faster}"), changes)
    return Plan(faster, "; ".join(told), sampling, chosen, changes, size)
