"""Everything that makes video. Importing it is cheap: torch waits for the first job."""

import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path


class _TorchvisionRepair(MetaPathFinder):
    """Just before the first `import torchvision`, declares its two operators if its compiled library does not load.

    A CPU-only torch beside a CUDA torchvision (or any mismatched pair of wheels) can't load torchvision's operators;
    `import torchvision` then fails with "operator torchvision::nms does not exist", and so do transformers and
    controlnet-aux. The bare schemas cure that: nothing here calls the operators. A finder on `sys.meta_path` does it
    at the last moment, so that the page can open without waiting for torch.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            self._repair()
        return None  # the ordinary finders go on to find torchvision itself

    def _repair(self) -> None:
        from importlib.util import find_spec

        spec = find_spec("torchvision")
        if spec is None or not spec.submodule_search_locations:
            return
        import torch

        for library in Path(spec.submodule_search_locations[0]).glob("_C*"):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(
                    f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )


# The same seed, the same video: else MKL, which torch multiplies matrices with, rounds by where in memory they lie.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, _TorchvisionRepair())
