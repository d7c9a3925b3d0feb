"""The one script of gradio's that the page gets otherwise. What it does then, test_browser_visit.py tries."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.testclient import TestClient

from ui import loading_status


def test_the_installed_gradio_has_the_script_and_one_place_of_it_is_changed():
    (route,) = loading_status.routes()
    theirs = (loading_status.SCRIPTS / Path(route.path).name).read_text("utf-8")
    answer = TestClient(Starlette(routes=[route])).get(route.path)
    assert answer.headers["content-type"].startswith("text/javascript")
    (gone,) = loading_status.INPUTS_TOO.finditer(theirs)
    assert answer.text == theirs[: gone.start()] + f"return {gone[1]}.map(" + theirs[gone.end() :]


def test_where_gradio_has_no_such_script_nothing_is_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(loading_status, "SCRIPTS", tmp_path)
    (tmp_path / "statustracker-1.js").write_text("return outputs.map(")
    assert loading_status.routes() == []
