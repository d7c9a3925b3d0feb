"""Settings and places: what can't be is told in one sentence with its variable's name; the rest is optional."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import programs
import pytest
from gradio_client import Client
from running_app import ROOT, environment, running_app
from test_health import health

from pipelines.serving import places
from pipelines.serving.ray_executor import RayExecutor
from pipelines.settings import RANGES, Settings

IMPOSSIBLE = [
    *(("UPLOAD_MB", value) for value in ("-5", "0", "1e9", "nan", "ten", "")),
    *(("KEEP_DAYS", value) for value in ("nan", "inf", "-inf", "-1", "0")),
    *(("KEEP_GB", value) for value in ("0", "-1", "nan")),
    *(("QUEUE", value) for value in ("0", "-1", "1.5", "9" * 30)),
    ("QUEUE_EACH", "0"),
    ("DISK_MARGIN_MB", "-1"),
    ("UPLOAD_SECONDS", "nan"),
    ("UPLOAD_SIDE", "-1"),
    ("UPLOAD_WORK_SECONDS", "0"),
    ("UPLOAD_MEMORY_MB", "1"),
    ("IDLE_MINUTES", "-1"),
    ("MEMORY_MARGIN_MB", "-1"),
    ("DEVICE", "gpu"),
    ("DEVICE", "cuda:x"),
    *(("RAY", value) for value in ("ray://host:10001", "host", "a b:1")),
    ("MODEL", ""),
    ("ORIGINAL", "nobody"),
    ("PASSWORD", ""),
    ("PASSWORD", "  "),
    ("ADMITTED", ""),
    ("DATA", ""),
    ("CACHE", " "),
    ("HUB", "maybe"),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_a_value_that_can_not_be_is_told_with_its_variable(name, value):
    with pytest.raises(ValueError, match=f"^MARIONETTE_{name}"):
        Settings.from_environment({f"MARIONETTE_{name}": value})


def test_a_cluster_without_ray_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"^MARIONETTE_RAY=auto .* pip install -r requirements-cluster\.txt"):
        RayExecutor(Settings(ray="auto"))


def test_every_number_has_a_range_that_its_default_is_in():
    numbers = {one.name for one in fields(Settings) if one.type in (int, float)}
    assert numbers == set(RANGES)
    assert all(RANGES[name][0] <= getattr(Settings(), name) <= RANGES[name][1] for name in numbers)


def test_a_password_is_never_told():
    with pytest.raises(ValueError) as told:
        Settings.from_environment({"MARIONETTE_PASSWORD": "\t \t"})
    assert "\\t" not in str(told.value) and "\t" not in str(told.value)


def test_whoever_has_no_home_has_a_cache_all_the_same():
    code = (
        "import pathlib\n"
        "def nowhere(cls): raise RuntimeError('no home')\n"
        "pathlib.Path.home = classmethod(nowhere)\n"
        "from pipelines.settings import Settings\n"
        "print(Settings().cache)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == str(Path(".cache") / "marionette"), ran.stderr


def ended(**variables):
    """What the app says where it can't start."""
    ran = programs.run(["app.py"], environment(**variables))
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    (line,) = ran.stderr.strip().splitlines()
    assert line.startswith("Marionette can't start: ")
    return line


def test_a_place_that_can_not_be_written_ends_it_with_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    line = ended(MARIONETTE_DATA=str(tmp_path / "file" / "folder"))
    assert "MARIONETTE_DATA" in line and "can't be written" in line


def test_a_number_out_of_range_ends_the_app_with_one_sentence(tmp_path):
    assert "MARIONETTE_UPLOAD_MB=-5 is out of range" in ended(
        MARIONETTE_DATA=str(tmp_path / "data"), MARIONETTE_UPLOAD_MB="-5"
    )


def test_loopback_needs_no_proxy(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    variables = {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "intranet,localhost", "GRADIO_SERVER_NAME": "10.0.0.5"}
    places.prepare(Settings(data=tmp_path), variables)
    assert variables["NO_PROXY"].split(",") == ["intranet", "localhost", "127.0.0.1", "::1", "10.0.0.5"]
    assert "127.0.0.1" in variables["no_proxy"].split(",")


def test_without_a_home_and_a_cache_and_behind_a_proxy_a_video_is_made(tmp_path):
    nowhere = {name: "/dev/null/home" for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR")}
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY")}
    foreign = {"MARIONETTE_CACHE": "/dev/null/cache", "GRADIO_TEMP_DIR": "/dev/null/gradio"}
    with running_app(tmp_path, forked=False, **foreign, **nowhere, **proxies) as app:
        assert app.seconds < 60  # 3 to 6 on two idle cores; a busy machine is no fault of ours
        assert health(app)["ok"]
        made = Client(app.url, verbose=False, download_files=tmp_path).predict(
            "a robot waves on the beach", steps=1, frames=8, api_name="/text_to_video"
        )
        assert Path(made[0]["video"] if isinstance(made[0], dict) else made[0]).stat().st_size > 1000
        assert (app.data / "public" / "uploads").is_dir()  # whatever GRADIO_TEMP_DIR says
    assert "Traceback" not in (tmp_path / "app.log").read_text()
