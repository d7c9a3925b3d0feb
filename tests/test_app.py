"""The app as programs meet it: its start, and its endpoints through gradio_client from another process."""

import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import programs
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from running_app import ROOT, environment, running_app

from pipelines.media import video

QUICK = {"steps": 2, "frames": 8}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("app"), MARIONETTE_QUEUE_EACH="5") as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Something that moves."""
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.full((12, 96, 128, 3), 200, np.uint8)
    for number, frame in enumerate(frames):
        frame[30:60, 8 * number : 8 * number + 24] = (200, 30, 30)
    return video.write(frames, file, 8) or file


@pytest.fixture(scope="module")
def client(app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    # Without https there is nothing to verify, and no list of authorities to read at each request.
    return Client(app.url, verbose=False, download_files=folder, ssl_verify=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MARIONETTE_QUEUE", "many"), ("MARIONETTE_MODEL", "gpt"), ("MARIONETTE_MODEL", "miniature-sd")],
)
def test_settings_that_can_not_be_end_it_with_one_clear_line(name, value):
    ran = programs.run(["app.py"], environment(**{name: value}))
    assert ran.returncode != 0 and "Traceback" not in ran.stderr
    (line,) = ran.stderr.strip().splitlines()
    assert line.startswith("Marionette can't start") and name in line and value in line


def test_a_prompt_becomes_a_file_and_its_facts(client):
    path, facts = client.predict(
        "a robot in blue waving on the beach", seed=7, fps=10, api_name="/text_to_video", **QUICK
    )
    assert read(path).shape == (8, 128, 128, 3)
    assert facts["task"] == facts["task"] | {"seed": 7, "fps": 10, "frames": 8, "steps": 2, "scheduler": "dpm++"}
    assert facts["seconds"] > 0 and facts["job"]


LIGHT = """
import sys, app
from pipelines.catalog import find
from pipelines.tasks import TextToVideo
task = TextToVideo.for_model(find("miniature-modelscope"), "a bear bows", 7, frames=8, steps=1)
*_, end = app.backend.jobs.events(app.backend.jobs.submit(task, "1" * 32), "1" * 32)
print(type(end).__name__, sorted({"torch", "diffusers", "transformers", "cv2"} & sys.modules.keys()))
app.backend.close()
"""


def test_the_page_imports_no_torch_for_its_jobs(tmp_path):
    variables = environment(MARIONETTE_DATA=str(tmp_path), MARIONETTE_HUB="0", MARIONETTE_DEVICE="cpu")
    ran = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert ran.stdout.strip() == "Result []", ran.stderr


def test_a_seed_that_is_drawn_is_told_and_makes_the_same_video_again(client):
    call = {"prompt": "a bear dances in the snow", "api_name": "/text_to_video", **QUICK}
    first, facts = client.predict(**call)
    again, _ = client.predict(**call, seed=facts["task"]["seed"])
    other, _ = client.predict(**call, seed=facts["task"]["seed"] ^ 1)
    assert (read(first) == read(again)).all()
    assert (read(first) != read(other)).any()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": "x" * 10_000}, "10000 characters"),
        ({"prompt": "a\x07robot"}, "control characters"),
        ({"seed": "NaN"}, "seed must be a number"),
        ({"guidance": "Infinity"}, "guidance must be a number"),
        ({"steps": "twenty"}, "number of steps must be a number"),
        ({"frames": 1000}, "number of frames must be from 8 to 96"),
        ({"width": 100}, "width must be from 128 to 128"),
        ({"model": "gpt"}, "no model called 'gpt'"),
        ({"scheduler": "euler"}, "no scheduler called 'euler'"),
        ({"model": "modelscope-1.7b"}, "not on this machine"),
    ],
)
def test_what_can_not_be_made_is_answered_with_a_sentence(client, app, values, says):
    before = made(app)
    with pytest.raises(AppError, match=says):
        client.predict(**{"prompt": "a robot", "seed": 1} | values, api_name="/text_to_video")
    assert made(app) == before


def test_what_is_needed_and_left_out_is_named(client):
    everything = {"text_to_video": "prompt", "grid": "prompts", "tune": "clip, prompt", "edit": "tuned, prompt"}
    for name, missing in (everything | {"pose_to_video": "prompt", "poses": "clip", "finish": "job"}).items():
        endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"][f"/{name}"]
        nulls = {one["parameter_name"]: None for one in endpoint["parameters"]}
        with pytest.raises(AppError, match=f"was left out: {missing}\\."):
            client.predict(**nulls, api_name=f"/{name}")
    grid = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/grid"]
    assert "prompt" not in {one["parameter_name"] for one in grid["parameters"]}  # it has prompts


def test_stop_ends_a_job_and_the_next_one_runs(client):
    job = client.submit("a robot dances in the city", steps=100, api_name="/text_to_video")
    news = first_news(job)
    client.predict(news["job"], news["visitor_id"], api_name="/stop")
    with pytest.raises(AppError, match="Stopped"):
        job.result(timeout=30)
    client.predict("a robot dances in the city", api_name="/text_to_video", **QUICK)


def test_stopping_what_is_not_there_says_so(client):
    with pytest.raises(AppError, match="no such job"):
        client.predict("0123", "1" * 32, api_name="/stop")


def test_a_listener_that_leaves_does_not_stop_the_job(client, app):
    before = made(app)
    job = client.submit("an astronaut jumping on the moon", steps=4, frames=8, api_name="/text_to_video")
    first_news(job)
    job.cancel()
    deadline = time.monotonic() + 60
    while made(app) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_only_what_is_meant_for_programs_is_published_and_documented(client):
    published = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(published) == {
        "/text_to_video",
        "/grid",
        "/pose_to_video",
        "/poses",
        "/tune",
        "/edit",
        "/finish",
        "/stop",
        "/pause",
        "/resume",
    }
    for endpoint in published.values():
        assert endpoint["description"] and all(given["type"] for given in endpoint["parameters"])
        assert all(given["label"].endswith(".") for given in endpoint["parameters"])  # what the docstring says of it
    endpoint = published["/text_to_video"]
    assert endpoint["description"].startswith("Makes a video of a prompt.")
    assert "miniature-modelscope" in str(endpoint["parameters"]) and len(endpoint["returns"]) == 2


def test_a_program_can_have_a_grid_made_and_stopped(client):
    prompts, seeds = ["a robot in blue", "a bear dances"], [7, 8]
    film, facts = client.predict(prompts, seeds, api_name="/grid", **QUICK)
    assert read(film).shape[0] == 8 and read(film).shape[2] > 2 * 128 and len(facts["jobs"]) == 4
    for values, says in (
        ({"prompts": ["a robot"], "seeds": [7]}, "wants several prompts"),
        ({"prompts": ["a robot"] * 9, "seeds": [7, 8]}, "18 videos"),
        ({"prompts": "a robot", "seeds": [7, 8]}, "are lists"),
        ({"prompts": ["a robot", 7]}, "prompt must be text"),
        ({"prompts": ["a robot"], "seeds": [7, "x"]}, "seed must be a number"),
    ):
        with pytest.raises(AppError, match=says):
            client.predict(**values, api_name="/grid")
    job = client.submit(prompts, steps=100, api_name="/grid")
    news = first_news(job)
    client.predict(news["job"], news["visitor_id"], api_name="/stop")
    with pytest.raises(AppError):
        job.result(timeout=60)


def test_a_program_can_begin_with_an_image(client, tmp_path):
    picture = np.full((128, 128, 3), (40, 90, 200), np.uint8)
    Image.fromarray(picture).save(tmp_path / "first.png")
    call = {"prompt": "a robot in blue", "image": handle_file(tmp_path / "first.png"), "api_name": "/text_to_video"}
    _, facts = client.predict(**call, model="miniature-tempofunk", **QUICK)
    assert len(facts["task"]["image"]) == 64 and not facts["task"]["mask"]
    with pytest.raises(AppError, match="takes no first image"):
        client.predict(**call)
    with pytest.raises(AppError, match="A mask needs the first image"):
        client.predict("a robot", mask=call["image"], model="miniature-tempofunk", api_name="/text_to_video")


def test_a_clip_is_tuned_on_and_told_again_by_a_program(client, app, clip):
    owner = "5" * 32
    call = {"clip": handle_file(clip), "prompt": "a robot dances", "frames": 8, "steps": 2, "visitor_id": owner}
    frames, facts = client.predict(**call, api_name="/tune")
    assert read(frames).shape == (8, 128, 128, 3) and facts["task"]["task"] == "tune" and facts["last_loss"] > 0
    told, about = client.predict(facts["job"], "a bear dances", owner, steps=2, api_name="/edit")
    assert read(told).shape == (8, 128, 128, 3)
    assert about["task"] == about["task"] | {"prompt": "a bear dances", "steps": 2}
    with pytest.raises(AppError, match="no such tuned model"):
        client.predict(facts["job"], "a bear dances", "6" * 32, api_name="/edit")
    with pytest.raises(AppError, match="The caption is empty"):
        client.predict(**call | {"prompt": ""}, api_name="/tune")


def test_a_running_tuning_is_stopped_by_a_program(client, clip):
    job = client.submit(handle_file(clip), "a robot dances", frames=8, steps=2000, api_name="/tune")
    news = first_news(job)
    client.predict(news["job"], news["visitor_id"], api_name="/stop")
    with pytest.raises(AppError, match="Stopped"):
        job.result(timeout=60)


def test_a_program_can_have_a_motion_danced_to(client, clip):
    for call, says in (
        ({}, "no poses to follow"),
        ({"motion": "sleep"}, "no motion called 'sleep'"),
        ({"motion": "wave", "clip": handle_file(clip)}, "but not both"),
        ({"motion": "wave", "strength": 9}, "pose strength must be from 0 to 1.5"),
        ({"motion": "wave", "tuned": "f" * 32}, "no such job"),
        ({"motion": "wave", "model": "followyourpose-v1"}, "not on this machine"),
    ):
        with pytest.raises(AppError, match=says):
            client.predict("a robot", **call, api_name="/pose_to_video")


def test_what_danced_to_a_motion_is_finished_by_a_program(client):
    danced, facts = client.predict("a robot in blue", motion="wave", **QUICK, api_name="/pose_to_video")
    assert read(danced).shape == (8, 128, 128, 3) and facts["poses"]["origin"] == "a built-in motion"
    finished, about = client.predict(facts["job"], facts["visitor_id"], 2, 2, api_name="/finish")
    assert read(finished).shape == (15, 256, 256, 3) and len(about["task"]["source"]) == 64
    with pytest.raises(AppError, match="Nothing would change"):
        client.predict(facts["job"], facts["visitor_id"], 1, 1, api_name="/finish")
    with pytest.raises(AppError):
        client.predict(facts["job"], "6" * 32, 2, 1, api_name="/finish")


@pytest.mark.parametrize("api", ["tune", "pose_to_video"])
def test_a_program_can_not_name_a_file_of_the_machine(app, api):
    """Only what it uploaded itself. gradio_client would refuse these by itself: they are sent without it."""
    own = app.data / "jobs.db"
    assert own.exists()
    for path in (str(own), f"{app.data.parent}/gradio/../videos/jobs.db", "https://127.0.0.1/clip.mp4", "", None, 7):
        said = post(app, api, {"clip": {"path": path}, "prompt": "a robot"})
        assert "event: error" in said and "no such upload" in said, (path, said)
    said = post(app, api, {"clip": {"path": str(own), "meta": {"_type": "gradio.FileData"}}, "prompt": "a robot"})
    assert said.startswith("event: error")  # gradio itself looks at what says that it is a file


def post(app, api, values):
    """What the endpoint says to `values` without gradio_client."""
    request = Request(
        f"{app.url}/gradio_api/call/v2/{api}", json.dumps(values).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=30) as answer:
        event = json.load(answer)["event_id"]
    with urlopen(f"{app.url}/gradio_api/call/{api}/{event}", timeout=30) as answer:
        return answer.read().decode()


def made(app):
    """The video files that the app has left so far."""
    return set(app.data.glob("videos/*/*.mp4"))


def test_jobs_of_others_can_not_be_stopped(client):
    job = client.submit("a robot dances in the city", steps=100, api_name="/text_to_video")
    news = first_news(job)
    for stranger in ("1" * 32, "", news["job"]):
        with pytest.raises(AppError, match="no such job"):
            client.predict(news["job"], stranger, api_name="/stop")
    assert not job.done()
    client.predict(news["job"], news["visitor_id"], api_name="/stop")


def test_a_program_pauses_and_resumes_its_own_job_and_no_other(client):
    job = client.submit("a bear bows on the beach", steps=30, api_name="/text_to_video")
    news = first_news(job)
    for name in ("/pause", "/resume"):
        with pytest.raises(AppError, match="no such job"):
            client.predict(news["job"], "1" * 32, api_name=name)
    while job.outputs()[-1][1].get("stage") != "Denoising":
        time.sleep(0.05)
    client.predict(news["job"], news["visitor_id"], api_name="/pause")
    time.sleep(3)
    told = job.outputs()[-1][1]
    assert not job.done() and told["stage"] == "Denoising" and told["step"] < 30
    client.predict(news["job"], news["visitor_id"], api_name="/resume")
    assert job.result(timeout=120)[1]["resumed_at_step"] >= told["step"]


def test_a_visitor_has_a_place_in_the_queue_and_no_more_than_that(client):
    owner = "3" * 32
    call = {"prompt": "a robot dances", "steps": 100, "visitor_id": owner, "api_name": "/text_to_video"}
    running = client.submit(**call)
    while first_news(running) and running.outputs()[-1][1]["stage"] == "Waiting":
        time.sleep(0.05)
    ids = [first_news(job)["job"] for job in [running, *(client.submit(**call) for _ in range(5))]]
    with pytest.raises(AppError, match="videos of yours are waiting already"):
        client.predict("one too many", visitor_id=owner, api_name="/text_to_video")
    for identifier in reversed(ids):
        client.predict(identifier, owner, api_name="/stop")


def test_nothing_private_is_served(app):
    for name in ("jobs.db", "secret", "marionette.log", "videos"):
        assert (app.data / name).exists()
        with pytest.raises(HTTPError):
            urlopen(f"{app.url}/gradio_api/file={app.data / name}", timeout=10)


def test_a_job_survives_the_death_of_the_app(tmp_path):
    owner = "4" * 32
    with running_app(tmp_path) as app:
        client = Client(app.url, verbose=False, download_files=tmp_path)
        first, second = (
            client.submit(
                "a bear bows in the forest", steps=8, frames=8, seed=seed, visitor_id=owner, api_name="/text_to_video"
            )
            for seed in (1, 2)
        )
        first_news(first), first_news(second)
        app.process.kill()
        app.process.wait()
    with running_app(tmp_path) as app:
        deadline = time.monotonic() + 120
        while len(made(app)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert {path.name for path in made(app)} == {f"a-bear-bows-in-the-forest-{seed}.mp4" for seed in (1, 2)}
        for path in made(app):
            assert read(path).shape == (8, 128, 128, 3)


def read(path):
    return video.read(Path(path))


def first_news(job):
    deadline = time.monotonic() + 60
    while not job.outputs():
        assert time.monotonic() < deadline and not job.done()
        time.sleep(0.05)
    return job.outputs()[0][1]


def test_poses_are_found_and_told(client, tmp_path):
    from scripts.miniature.world import Words, draw_clip

    drawn = draw_clip(Words("person", "red", "beach", "waving"), np.random.default_rng(1), frames=4).frames
    video.write(drawn, tmp_path / "clip.mp4", 8)
    file, facts = client.predict(handle_file(tmp_path / "clip.mp4"), end=0.4, api_name="/poses")
    frames = json.loads(Path(file).read_text())
    assert len(frames) == facts["frames"] == 4 and frames[0]["canvas_width"] == frames[0]["canvas_height"] == 128
    assert all(len(person["pose_keypoints_2d"]) == 54 for frame in frames for person in frame["people"])
    assert facts["people"] >= 1 and facts["origin"].startswith("drawn figures found by")
    with pytest.raises(AppError, match="less than"):
        client.predict(handle_file(tmp_path / "clip.mp4"), start=9, api_name="/poses")
