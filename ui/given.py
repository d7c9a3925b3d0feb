"""What a video of a prompt can be made with beside its words: a first image, a reference image, a clip."""

from dataclasses import dataclass

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.serving.backend import Backend
from ui import changed_clip, first_image, reference
from ui.changed_clip import ChangedClip
from ui.controls import Controls
from ui.first_image import FirstImage
from ui.reference import Reference


@dataclass(frozen=True)
class Given:
    """The three, each of which is there for the models that take it."""

    image: FirstImage
    reference: Reference
    clip: ChangedClip

    @property
    def controls(self) -> list[gr.components.Component | gr.Column]:
        """Those that `fill` sets."""
        return [*self.image.controls, *self.reference.controls, *self.clip.controls]

    @property
    def named(self) -> Controls:
        """Those of the reference image and the clip, by the names of the settings."""
        return {"reference": self.reference.kept, **self.clip.named}

    @property
    def form(self) -> list[gr.components.Component]:
        """Those that a task is made of."""
        return [*self.image.form, *self.named.values(), self.clip.mask, self.clip.strokes]

    def fill(self, card: ModelCard, values: dict) -> dict:
        """The updates that show what `values` say for `card`."""
        of_image = values | {"mask": ""} if values.get("clip") else values  # a mask is of the clip, if there is one
        return self.image.fill(card, of_image) | self.reference.fill(card, values) | self.clip.fill(card, values)


def build(backend: Backend, owner: gr.BrowserState, card: ModelCard) -> Given:
    """Builds the controls where it is called, as `card` takes them."""
    return Given(
        first_image.build(backend, owner, card),
        reference.build(backend, owner, card),
        changed_clip.build(backend, owner, card),
    )
