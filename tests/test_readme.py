"""What the README promises: Space front matter, settings and models agree with the code."""

import re
from dataclasses import fields
from pathlib import Path

import gradio
import yaml

from pipelines.catalog import CATALOG
from pipelines.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_, FRONT, TEXT = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)


def test_the_front_matter_is_what_a_space_needs():
    front = yaml.safe_load(FRONT)
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours
    assert (
        front["sdk"] == "gradio" and front["license"] == "mit" and front["python_version"] in ("3.10", "3.11", "3.12")
    )
    assert (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    assert front["models"] == [card.source.location for card in CATALOG.values() if not card.source.is_folder]


def test_the_space_runs_a_gradio_that_the_requirements_allow():
    version = yaml.safe_load(FRONT)["sdk_version"]
    least, below = re.search(r"^gradio>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text(), re.M).groups()
    assert version.startswith(f"{least}.") and int(version.split(".")[0]) < int(below)
    assert gradio.__version__.split(".")[0] == version.split(".")[0]


def test_every_setting_is_explained_with_its_default():
    rows = dict(re.findall(r"^\| `(MARIONETTE_\w+)` \| `([^`]+)` \|", TEXT, re.M))
    defaults = {f"MARIONETTE_{field.name.upper()}": field.default for field in fields(Settings)}
    assert rows.keys() == defaults.keys()
    for name, default in defaults.items():
        told = Path(rows[name]).expanduser() if isinstance(default, Path) else rows[name]
        assert told == default or float(told) == float(default), name


def test_every_model_is_there_with_its_licence():
    for card in CATALOG.values():
        (row,) = [line for line in TEXT.splitlines() if line.startswith("|") and card.title in line]
        assert card.licence.split(",")[0].split(":")[0] in row
