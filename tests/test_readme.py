"""What the README promises: Space front matter, settings and models agree with the code."""

import json
import re
from dataclasses import fields
from pathlib import Path

import gradio as gr
import yaml

from pipelines.catalog import CATALOG, CLIP
from pipelines.detectors import DETECTORS
from pipelines.models.convert import openpose
from pipelines.settings import Settings
from ui import responsible_use

ROOT = Path(__file__).resolve().parent.parent
_, FRONT, TEXT = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)


KEYS = set(  # of a Space with sdk gradio: hub-docs, spaces-config-reference.md
    """title emoji colorFrom colorTo sdk sdk_version python_version app_file license short_description
    suggested_hardware startup_duration_timeout preload_from_hub models tags hf_oauth hf_oauth_scopes""".split()
)
SCOPES = {
    "email",
    "read-repos",
    "write-repos",
    "manage-repos",
    "contribute-repos",
    "inference-api",
    "write-discussions",
}


def front():
    return yaml.safe_load(FRONT)


def test_the_front_matter_is_what_a_space_needs():
    values = front()
    assert values.keys() <= KEYS
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {values["colorFrom"], values["colorTo"]} <= colours
    assert values["sdk"] == "gradio" and values["python_version"] in ("3.10", "3.11", "3.12")
    assert values["license"] == "mit" and (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert (ROOT / values["app_file"]).is_file()
    assert len(values["short_description"]) <= 60 and values["title"] and len(values["emoji"]) <= 2
    assert values["suggested_hardware"] == "cpu-basic"  # what a copy has by default, and where everything built in runs
    assert re.fullmatch(r"\d+(s|m|h)", values["startup_duration_timeout"])
    assert all(re.fullmatch("[a-z-]+", tag) for tag in values["tags"])
    assert set(values.get("hf_oauth_scopes", ())) <= SCOPES and len(values.get("hf_oauth_scopes", ())) <= 1


def test_the_models_are_those_that_the_catalog_can_fetch():
    sources = [source for card in CATALOG.values() for source in (card.source, card.image_model, card.source.base)]
    sources += [detector.source for detector in DETECTORS.values()] + [CLIP]
    named = dict.fromkeys(source.location for source in sources if source is not None and not source.is_folder)
    assert front()["models"] == list(named)


def test_what_is_preloaded_is_what_two_cores_can_run_at_the_revision_of_the_catalog():
    """Full-size video models would take hours there; a detector takes a second a frame."""
    sources = [detector.source for detector in DETECTORS.values() if detector.source is not None]
    wanted = [source for source in sources if not source.is_folder]
    assert front()["preload_from_hub"] == [f"{one.location} {openpose.FILE} {one.revision}" for one in wanted]
    assert all(re.fullmatch("[0-9a-f]{40}", one.revision) for one in wanted)


def test_no_package_of_the_system_is_needed_that_pip_does_not_bring():
    """packages.txt has no line: ffmpeg comes with imageio-ffmpeg, and no other program is started."""
    assert (ROOT / "packages.txt").read_text() == ""
    started = {
        file.name
        for file in (ROOT / "pipelines").rglob("*.py")
        if re.search(r"subprocess\.(run\(|Popen|check_\w+\()|os\.(system|exec|spawn)|which\(", file.read_text("utf-8"))
    }
    # But Python, and by limited.py what ffmpeg.py names.
    assert started == {"ffmpeg.py", "limited.py", "processes.py"}
    media = ROOT / "pipelines" / "media"
    assert "get_ffmpeg_exe" in (media / "ffmpeg.py").read_text("utf-8")


def test_the_space_runs_a_gradio_that_the_requirements_allow():
    version = front()["sdk_version"]
    least, below = re.search(r"^gradio>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text(), re.M).groups()
    assert version.startswith(f"{least}.") and int(version.split(".")[0]) < int(below)
    assert gr.__version__.split(".")[0] == version.split(".")[0]


def test_every_setting_is_explained_with_its_default():
    rows = dict(re.findall(r"^\| `(MARIONETTE_\w+)` \| `([^`]+)` \|", TEXT, re.M))
    defaults = {f"MARIONETTE_{field.name.upper()}": field.default for field in fields(Settings)}
    assert rows.keys() == defaults.keys()
    for name, default in defaults.items():
        told = Path(rows[name]).expanduser() if isinstance(default, Path) else rows[name]
        assert told == (default or "none") or float(told) == float(default), name


def test_every_model_is_there_with_its_licence():
    for card in CATALOG.values():
        (row,) = [line for line in TEXT.splitlines() if line.startswith("|") and card.title in line]
        assert card.licence.split(",")[0].split(":")[0] in row


def test_what_is_said_of_responsible_use_names_every_model_and_stands_on_the_page():
    said = (ROOT / "RESPONSIBLE_USE.md").read_text("utf-8")
    assert "(RESPONSIBLE_USE.md)" in TEXT and "(CHANGELOG.md)" in TEXT
    for card in CATALOG.values():
        title = "The paper theatre" if card.source.is_folder else card.title.replace("A man is surfing", "Tune-A-Video")
        assert f"**{title}" in said, card.title
    with gr.Blocks() as demo:
        responsible_use.section()
    (text,) = [block.value for block in demo.blocks.values() if isinstance(block, gr.Markdown)]
    shown = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["key"]
    assert shown.split() == said.partition("\n")[2].split()
