"""miniature-openpose, through the manager and the app's own decoding, on fresh drawn clips."""

import numpy as np
import pytest

from pipelines.catalog import CATALOG
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from scripts.miniature.openpose import FOLDER, examine


@pytest.mark.parametrize("soiled, wanted", [(False, 0.95), (True, 0.9)])
def test_it_finds_the_joints_of_drawn_dancers(soiled, wanted):
    right = examine(ModelManager(CATALOG, Settings(hub=False), device="cpu"), 10, seed=5, soiled=soiled)
    assert np.nanmean(right) > wanted
    assert np.nanmean(right, axis=0).min() > wanted - 0.15  # of no joint is it ignorant


def test_its_files_are_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 4_000_000
