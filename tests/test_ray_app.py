"""The page over a Ray cluster: the same endpoints as always, and whatever dies, the same video once."""

import os
import signal
from functools import partial
from urllib.request import urlopen

import pytest
import scripted_ray
from gradio_client import Client
from running_app import running_app
from scripted_ray import PATIENCE, wait_for
from test_app import first_news, made, read

from scripts.attack import target, worker_kills

pytestmark = pytest.mark.ray
ASKED = {"prompt": "a bear bows", "seed": 7, "steps": 24, "frames": 8, "api_name": "/text_to_video"}


@pytest.fixture
def address():
    """Of a cluster with one worker."""
    scripted_ray.installed()
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": scripted_ray.STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **options})
    yield cluster.address
    cluster.shutdown()


def actors():
    return [pid for pid in target.children(os.getpid()) if worker_kills.is_actor(pid)]


def denoises(job):
    """Whether a step of it is done."""
    told = job.outputs()[-1][1] if job.outputs() else {}
    assert not job.done()
    return told.get("stage") == "Denoising" and told["step"] > 0


def metrics(app):
    with urlopen(f"{app.url}/metrics", timeout=10) as told:
        return told.read().decode()


def test_what_is_paused_and_whatever_is_killed_ends_with_the_same_video(address, tmp_path):
    variables = {"MARIONETTE_RAY": address, "MARIONETTE_METRICS": "1"}
    with running_app(tmp_path, forked=False, **variables) as app:
        client = Client(app.url, verbose=False, download_files=tmp_path)
        whole = read(client.predict(**ASKED)[0])
        assert 'marionette_worker_ready{worker="0"} 1' in metrics(app)

        job = client.submit(**ASKED)
        news = first_news(job)
        wait_for(partial(denoises, job))
        client.predict(news["job"], news["visitor_id"], api_name="/pause")
        wait_for(lambda: 'marionette_jobs{state="paused"} 1' in metrics(app))
        client.predict(news["job"], news["visitor_id"], api_name="/resume")
        file, facts = job.result(PATIENCE)
        assert (read(file) == whole).all() and facts["resumed_at_step"] > 0

        job = client.submit(**ASKED)
        wait_for(partial(denoises, job))
        (killed,) = actors()
        os.kill(killed, signal.SIGKILL)
        assert (read(job.result(PATIENCE)[0]) == whole).all()

        job = client.submit(**ASKED)
        wait_for(partial(denoises, job))
        workers = actors()
        assert workers != [killed]
        app.process.kill()
        app.process.wait()
    with running_app(tmp_path, forked=False, **variables) as app:
        wait_for(lambda: len(made(app)) == 4)
        assert all((read(file) == whole).all() for file in made(app)) and actors() == workers
    assert not actors()
