"""The page as a whole, without a browser."""

import gradio as gr
import numpy as np
import pytest
from gradio import processing_utils
from running_app import awaited, launch_options

from pipelines.catalog import find
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import Edit, TextToVideo, Tune, to_json
from ui import page
from ui.player import films


def test_gradio_keeps_no_copy_of_a_finished_video(tmp_path):
    """It would outlive a deletion, and fill the disk."""
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    demo = page.build(backend, settings)
    backend.close()
    made = tmp_path / "data" / "videos" / "0123" / "a-bear-7.mp4"
    made.parent.mkdir()
    made.write_bytes(b"video")
    file = backend.assets.address(made)
    for name in ("video", "chosen-video", "mp4", "gif-file", "library-webm-file"):
        (component,) = [block for block in demo.blocks.values() if block.elem_id == name]
        component.GRADIO_CACHE = str(tmp_path / "copies")
        if isinstance(component, gr.HTML):
            value = component.postprocess(films(file))[0]["file"]
        else:
            value = component.postprocess(str(file)).model_dump()
        told = awaited(processing_utils.async_move_files_to_cache(value, component, postprocess=True))
        assert told["path"] == str(file), name
    assert not (tmp_path / "copies").exists()
    shown = str(tmp_path / "data" / "public" / "shown")
    assert launch_options(settings)["allowed_paths"] == [shown]


def test_the_settings_of_a_video_go_to_the_tab_that_makes_such(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    demo = page.build(backend, settings)
    restore = next(event.fn for event in demo.fns.values() if getattr(event.fn, "__name__", "") == "restore")
    film = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)

    def restored(task):
        video.write(film, tmp_path / "a.mp4", 8, to_json(task))
        updates = restore("1" * 32, str(tmp_path / "a.mp4"))
        return next(update.selected for update in updates.values() if isinstance(update, gr.Tabs))

    sd = find("miniature-sd")
    assert restored(TextToVideo.for_model(find("miniature-modelscope"), "a bear", 7)) == "text-to-video"
    assert restored(Edit.for_model(sd, "a bear", 7, tuned="0" * 32)) == "edit-clip"
    with pytest.raises(gr.Error, match="part of a clip that a model was tuned on.*Log number"):
        restored(Tune.for_model(sd, "a bear", 7, clip="0" * 32))
    backend.close()
