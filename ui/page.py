"""The page as a whole: its head, its tabs, and how it is launched."""

from typing import Any, cast

import gradio as gr
from starlette.middleware import Middleware

from pipelines.catalog import ASSETS, CATALOG
from pipelines.serving.backend import Backend
from pipelines.settings import Settings
from pipelines.tasks import Edit, PoseToVideo, TextToVideo
from ui import (
    access,
    agents,
    api,
    bundle,
    edit_clip,
    errors,
    follower,
    health,
    html,
    hub,
    language_choice,
    library,
    loading_status,
    pose_to_video,
    public,
    responsible_use,
    restore,
    server,
    space,
    status,
    text_to_video,
    use_by_code,
    visitor,
)
from ui.languages import WORDS, say
from ui.origins import Origins
from ui.refill import Forms
from ui.theme import theme
from ui.upload_limit import UploadLimit

# Of these gradio forgets what comes while the answer to the one before is awaited; but the last one is meant.
CHOICES = {"input", "change", "select", "release", "blur", "upload", "clear"}


def build(backend: Backend, settings: Settings) -> gr.Blocks:
    """The page over `backend`. Raises ValueError where `settings` name a model that there is not."""
    backend = cast(Backend, visitor.ForVisitors(backend))  # the same methods, with ids in place of owners
    # What is shown is served from where it is: of all else gradio keeps a copy, which would outlive a deletion.
    gr.set_static_paths(_served(settings))
    old = (3600, 24 * 3600)  # every hour, uploads older than a day are deleted
    with server.Page(title="Marionette", analytics_enabled=False, fill_width=True, delete_cache=old) as demo:
        calm = gr.HTML(visible=False)
        with gr.Row(elem_id="head"):
            gr.HTML(html.HEADLINES, html_template=html.HEADER)
            status.corner(backend, settings)
        space.notice(backend, settings)
        hub.sign_in()
        owner = visitor.state(backend)
        arrived = demo.load(
            hub.arrival(backend), owner, owner, api_visibility="private", queue=False, show_progress="hidden"
        )
        arrived.then(backend.machine.load_ahead, api_visibility="private", queue=False, show_progress="hidden")
        given, followed = gr.State(), gr.State()  # a video of the library that is to be edited, or followed
        begun = gr.State()  # a first image from the library
        with gr.Tabs() as tabs:
            with gr.Tab(say("Text to video"), id="text-to-video"):
                text = text_to_video.TextToVideoTab(backend, settings, owner, arrived, begun)
            with gr.Tab(say("Pose to video"), id="pose-to-video", elem_id="pose-to-video") as pose:
                posing = pose_to_video.PoseToVideoTab(backend, owner, pose, arrived, followed)
            with gr.Tab(say("Edit a clip"), id="edit-clip", elem_id="edit-clip") as edit:
                editing = edit_clip.EditTab(backend, owner, edit, arrived, given)
            forms = Forms(tabs, {TextToVideo: text.form, PoseToVideo: posing.form, Edit: editing.form})
            with gr.Tab(say("Library"), id="library", elem_id="library") as shelf:
                clips = {"edit-clip": given, "pose-to-video": followed}
                opened = access.is_open(settings)
                button, finish = library.tab(backend, owner, shelf, tabs, forms, clips, begun, opened)
        stages = [text, posing, editing.bench, editing.panel, text.finish, posing.finish, editing.panel.finish, finish]
        follower.Watch(backend, owner, stages)
        use_by_code.section(demo)
        responsible_use.section()
        restore.takers(backend, owner, forms, button)
        api.endpoints(backend, settings)
    for card in CATALOG.values():  # so that a browser learns the words of every card, as it is now and once it is here
        for missing in (None, backend.machine.availability(card.name)):
            html.model_card(card, missing)
    for event in demo.fns.values():
        # At every answer the browser looks up, for each event that ever went off, all that shows that it was waited
        # for: by default its outputs. With many of them it had no time left for anything else.
        if event.trigger_mode == "once" and {kind for _, kind in event.targets} <= CHOICES:
            event.trigger_mode = "always_last"
        if event.show_progress == "hidden":
            event.show_progress_on = [calm]
        if event.fn is not None:
            event.fn = errors.telling(event.fn)
    return demo.queue(max_size=4 * (settings.queue + 2))  # every job has one listener or a few


def launch_options(backend: Backend, settings: Settings) -> dict[str, Any]:
    """What `Blocks.launch` needs beside the page itself. Raises ValueError where `settings` let nobody in."""
    routes = [health.route(backend), bundle.route(settings), *public.pictures(), *loading_status.routes()]
    routes += [health.metrics(backend)] if settings.metrics else []
    before = [
        *access.gate(settings),
        Middleware(public.Shut, settings=settings),
        Middleware(UploadLimit, backend=backend),
        Middleware(language_choice.Scripted),
    ]
    return {
        "theme": theme(),
        "i18n": WORDS,
        "css_paths": [ASSETS / "style.css", ASSETS / "player.css"],
        "js": _scripts("player.js", "hover.js", "drop.js", "keys.js", "answers.js", "awake.js", "poses.js"),
        "max_file_size": settings.upload_mb * 10**6,
        "favicon_path": ASSETS / "favicon.svg",
        "allowed_paths": _served(settings),
        "footer_links": ["api", "settings"],
        "run_history": False,
        "ssr_mode": False,
        "state_session_capacity": server.SESSIONS,
        "max_threads": server.THREADS,
        "enable_monitoring": settings.monitoring,
        **agents.tools(settings),
        **access.password(settings),
        "_app": server.App(Origins.of(settings), before, routes),
        "app_kwargs": {"lifespan": server.tidied},
    }


def _served(settings: Settings) -> list[str]:
    """The only folder whose files a browser may load: what is shown."""
    return [str(settings.shown.resolve())]


def _scripts(*names: str) -> str:
    """The functions in the files of these names as one, which calls each when the page opens."""
    return f"() => {{{''.join(f'({(ASSETS / name).read_text()})();' for name in names)}}}"
