"""Tests may import diffusers and transformers first: the torchvision repair comes before them all the same."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: each computes with one thread, its children too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pipelines  # noqa: F401
