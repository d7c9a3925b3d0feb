"""The large libraries are imported without stopping the page."""

import subprocess
import sys
from pathlib import Path

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


LOADED = """
import sys
from pathlib import Path
from pipelines import imports

imports.load_torch_library()
assert "torch" not in sys.modules
assert any("libtorch_cpu" in line for line in Path("/proc/self/maps").read_text().splitlines())
assert imports.imported("torch").ones(2).sum() == 2
imports.load_torch_library()
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell which libraries are loaded")
def test_the_largest_library_of_torch_is_loaded_before_python_imports_torch():
    """A foreign call gives up Python's lock meanwhile; an import does not, and the page would stand still."""
    ran = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=120, env=environment())
    assert ran.returncode == 0, ran.stderr
