"""Tests may import diffusers and transformers first: the torchvision repair comes before them all the same."""

import pipelines  # noqa: F401
