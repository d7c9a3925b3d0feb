"""The large libraries are imported without stopping the page."""

import subprocess
import sys

import pytest
from running_app import environment

IMPORT = """
import gc, sys
from pipelines.systems.engine import find_engine

collected = []
gc.callbacks.append(lambda phase, told: collected.append((phase, told["generation"])))
find_engine("modelscope")
assert "torch" in sys.modules and "diffusers" in sys.modules
print(collected.count(("start", 2)), gc.isenabled(), gc.get_freeze_count() > 300_000)
"""


def test_an_engine_is_imported_without_a_look_through_all_objects():
    ran = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, timeout=120, env=environment())
    assert ran.stdout.split() == ["0", "True", "True"], ran.stderr


def test_an_import_that_fails_leaves_collections_on(tmp_path, monkeypatch):
    import gc

    from pipelines.imports import imported

    (tmp_path / "broken_library.py").write_text("raise ValueError('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="broken"):
        imported("broken_library")
    assert gc.isenabled()
