"""Controls that several tabs have."""

import gradio as gr
from gradio.i18n import I18nData

from pipelines.serving.backend import Backend

CLIPS = [".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif", ".webp", ".png", ".apng"]
PICTURES = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]
# A button in a gr.HTML tells what is written on it as data. It keeps the keyboard's place where the HTML is drawn anew.
CLICKS = """
const buttons = '[data-job], [data-motion], [data-example], [data-word]';
let place = null;
element.addEventListener('click', event => {
  const button = event.target.closest(buttons);
  if (button) trigger('click', {...button.dataset});
});
element.addEventListener('focusin', event => { place = event.target; });
element.addEventListener('focusout', event => setTimeout(() => {
  if (place === event.target && place.isConnected) place = null;
}));
new MutationObserver(() => {
  if (!place || place.isConnected) return;
  const what = JSON.stringify(place.dataset);
  place = [...element.querySelectorAll(buttons)].find(one => JSON.stringify(one.dataset) === what);
  place?.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
"""
# Arrow keys go from one button of a row of chips to the next.
ARROWS = """
element.addEventListener('keydown', event => {
  const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const row = event.target.closest('.chips > div');
  if (!by || !row) return;
  const all = [...row.querySelectorAll('button')];
  all[(all.indexOf(event.target) + by + all.length) % all.length].focus();
  event.preventDefault();
});
"""
# For listeners that read an upload: more than are read at once, as others of the same visitor only wait, and fewer than
# there are threads for all that visitors do. gradio's own default is one at a time for everybody.
READING = {"concurrency_id": "uploads", "concurrency_limit": 12}


def scroll_to(*parts: str) -> str:
    """JavaScript that brings the `parts` of the page, selectors, into view where they are not, the last one surely."""
    each = ", ".join(f"'{part}'" for part in parts)
    return f"() => [{each}].forEach((part) => document.querySelector(part)?.scrollIntoView({{block: 'nearest'}}))"


def export(title: I18nData, kind: str, backend: Backend, owner: gr.BrowserState, job: gr.State, name: str) -> None:
    """Builds a button called `name` that saves the video of `job` as a file of `kind`."""
    button = gr.Button(title, size="md", elem_id=name)
    file = gr.DownloadButton(elem_id=f"{name}-file", elem_classes="unseen")  # it saves what the other made
    button.click(
        lambda visitor_id, identifier: backend.assets.address(backend.jobs.export(identifier, visitor_id, kind)),
        [owner, job],
        file,
        show_progress_on=button,
        concurrency_limit=4,
        api_visibility="private",
    ).success(None, js=f"() => setTimeout(() => document.querySelector('#{name}-file').click())")
