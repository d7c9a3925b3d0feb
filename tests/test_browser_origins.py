"""Pages of another origin in a real Chromium: with the cookies of who has the password they neither act nor read."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import test_browser
from running_app import running_app
from test_browser import PATIENCE

chromium = test_browser.chromium
PASSWORD = "a good one"

# What a foreign page tries with the address of the app; each tells what it got.
TRIES = """async app => {
    const read = async (path, options) => {
        try {
            const said = await fetch(app + path, {credentials: 'include', ...options});
            return said.type + ' ' + said.status + ' ' + (await said.text()).slice(0, 40);
        } catch (error) { return 'failed'; }
    };
    const loaded = (name, path, event) => new Promise(tell => {
        const made = document.createElement(name);
        made.onload = made.onloadeddata = () => tell('loaded');
        made.onerror = () => tell('failed');
        made.src = app + path;
        document.body.append(made);
    });
    const json = {'Content-Type': 'application/json'}, body = '{"data": [], "fn_index": 0}';
    return {
        config: await read('/config'),
        info: await read('/gradio_api/info'),
        run: await read('/gradio_api/run/predict', {method: 'POST', headers: json, body}),
        plain: await read('/gradio_api/run/predict', {method: 'POST', body}),
        blind: await read('/gradio_api/run/predict', {method: 'POST', mode: 'no-cors', body}),
        blind_read: await read('/config', {mode: 'no-cors'}),
        events: await new Promise(tell => {
            const source = new EventSource(app + '/gradio_api/queue/data?session_hash=x', {withCredentials: true});
            source.onopen = () => tell('opened');
            source.onerror = () => { source.close(); tell('failed'); };
        }),
        image: await loaded('img', '/favicon.ico?' + Math.random()),
        script: await loaded('script', '/config'),
    };
}"""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("origins"), MARIONETTE_PASSWORD=PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The address of a page of another site. On another port it is of another origin, though of the same site."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title><body>elsewhere</body>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture
def admitted(chromium, app):
    """An empty page of a browser that knows the password."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    said = context.request.post(f"{app.url}/login", form={"username": "me", "password": PASSWORD})
    assert said.ok and context.request.get(f"{app.url}/config").ok
    yield context.new_page()
    context.close()


@pytest.fixture
def page(admitted, app):
    """The same, which has shown the app, and so may have kept some of it."""
    admitted.goto(app.url)
    admitted.wait_for_selector("#prompt textarea")
    return admitted


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # of the same site and of another one
def test_a_foreign_page_neither_acts_nor_reads(page, app, elsewhere, host):
    page.goto(f"http://{host}:{elsewhere}/")
    got = page.evaluate(TRIES, app.url)
    opaque = {name: got.pop(name) for name in ("blind", "blind_read")}
    assert all(said.startswith("opaque 0") for said in opaque.values())
    if host == "127.0.0.1":  # cookies come along, as ports make no other site
        assert set(got.values()) == {"failed"}, got
    else:
        got.pop("image")  # the app's own icon, which needs no password
        assert set(got.values()) == {"failed"}, got


def test_a_form_of_a_foreign_page_is_refused(admitted, app, elsewhere):
    page = admitted
    page.goto(f"http://127.0.0.1:{elsewhere}/")
    with page.expect_navigation() as answered:
        page.evaluate(
            """app => {
                const form = document.createElement('form');
                form.method = 'post'; form.action = app + '/gradio_api/run/predict'; form.enctype = 'text/plain';
                document.body.append(form); form.submit();
            }""",
            app.url,
        )
    assert answered.value.status == 403 and "another site" in page.inner_text("body")


def test_a_foreign_page_can_not_show_the_app_in_a_frame(page, app, elsewhere):
    page.goto(f"http://127.0.0.1:{elsewhere}/")
    page.evaluate("app => document.body.append(Object.assign(document.createElement('iframe'), {src: app}))", app.url)
    page.wait_for_timeout(3000)
    assert all("prompt" not in frame.content() for frame in page.frames[1:])


def test_a_link_to_the_app_opens_it_for_who_has_the_password(admitted, app, elsewhere):
    page = admitted
    page.goto(f"http://localhost:{elsewhere}/")
    page.evaluate("app => { location.href = app }", app.url)
    page.wait_for_selector("#prompt textarea")
