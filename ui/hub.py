"""Signing in with Hugging Face, on a Space that offers it: jobs become the user's, and tuned models go to their Hub."""

import os
from collections.abc import Callable, Iterator, Mapping

import gradio as gr

from pipelines.catalog import tuned_models
from pipelines.events import Progress
from pipelines.messages import said
from pipelines.serving.backend import Backend
from ui import html, stream, visitor
from ui.languages import say, tell


def offered(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a Space whose README asks for hf_oauth."""
    return bool(environment.get("SPACE_ID") and environment.get("OAUTH_CLIENT_ID"))


def arrival(backend: Backend) -> Callable[..., str]:
    """What tells, from what a browser keeps and, if it takes it, the profile of who has signed in, who has come."""
    if not offered():
        return visitor.known

    def arrive(value: str, profile: gr.OAuthProfile | None) -> str:
        if profile is not None:
            return backend.owners.account(profile["sub"])
        return visitor.known("" if backend.owners.is_account(value) else value)  # who has signed out is a stranger

    return arrive


def sign_in() -> None:
    """Builds the button to sign in where it is called, on a Space that offers it."""
    if offered():
        gr.LoginButton(say("Sign in: keep your videos on every device"), size="md", elem_id="sign-in")


def keeping(backend: Backend, owner: gr.BrowserState, chosen: gr.State) -> None:
    """Builds what brings the `chosen` tuned model of the `owner` to the Hub, on a Space that offers to sign in."""
    if not offered():
        return
    with gr.Accordion(say("Save the tuned model to the Hugging Face Hub"), open=False, elem_id="to-hub") as section:
        name = gr.Textbox(label=say("Name of a new private repository"), max_lines=1, elem_id="repository")
        keep = gr.Button(say("Save to the Hub"), size="md", elem_id="keep-on-hub")
        line = gr.HTML(elem_id="hub-line")

    def publish(identifier: str, visitor_id: str, title: str, token: gr.OAuthToken | None) -> Iterator[str]:
        if token is None:
            yield html.failure(said("Sign in at the top of the page first."), said("Nothing was uploaded."))
            return
        if not identifier:
            yield html.failure(said("Choose a tuned model first."), said("Nothing was uploaded."))
            return
        try:
            going = backend.tunings.publish(identifier, visitor_id, title.strip(), token.token)
            while True:
                try:
                    step: Progress = next(going)
                except StopIteration as end:
                    address = html.escape(end.value)
                    link = f'<a href="{address}">{address}</a>'
                    yield f'<p class="caption">{tell("Kept, for you alone, at {link}", link=link)}</p>'
                    return
                yield html.footlights(stream.Moment(progress=step))
        except (ValueError, OSError) as error:
            yield html.failure(str(error), said("Nothing was uploaded."))

    chosen.change(
        lambda identifier: gr.Accordion(visible=identifier not in tuned_models()),
        *(chosen, section),
        api_visibility="private",
        show_progress="hidden",
    )
    keep.click(
        publish, [chosen, owner, name], line, api_visibility="private", show_progress="hidden", concurrency_limit=2
    )
