"""Controls that several tabs have."""

import gradio as gr
from gradio.i18n import I18nData

from pipelines.catalog import Range
from pipelines.serving.backend import Backend

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
_IN_STEP = """() => setTimeout(() => {
  const videos = [...document.querySelectorAll('%s')].filter(video => video.src);
  const longest = () => videos.reduce((one, other) => other.duration > one.duration + 0.05 ? other : one);
  const meet = (one, other) => {
    const moment = other.duration ? one.currentTime %% other.duration : one.currentTime;
    if (Math.abs(moment - other.currentTime) > 0.1) other.currentTime = moment;
  };
  const led = (one, act) => () => {
    if (one === longest()) videos.filter(other => other !== one).forEach(act);
  };
  for (const one of videos) {
    one.ontimeupdate = led(one, other => meet(one, other));
    one.onplay = led(one, other => other.play());
    one.onpause = led(one, other => other.pause());
    one.onloadeddata = () => { if (one !== longest()) meet(longest(), one); };
  }
}, 300)"""


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


def player(label: I18nData, **rest: object) -> gr.Video:
    """A video that plays by itself, again and again."""
    plain = {"show_label": False, "container": False, "interactive": False, "buttons": []}
    return gr.Video(label=label, autoplay=True, loop=True, **plain, **rest)


def slider(allowed: Range, value: float, **rest: object) -> gr.Slider:
    """A slider over `allowed`."""
    return gr.Slider(allowed.low, allowed.high, value, step=step(allowed), buttons=[], **rest)


def step(allowed: Range) -> float:
    """From one value of a slider over `allowed` to the next; like a Range, a slider counts from its lower end."""
    return allowed.step or 0.5


def in_step(*ids: str) -> str:
    """JavaScript that has the videos in the elements of these ids show the same moment: that of the longest."""
    return _IN_STEP % ", ".join(f"#{name} video" for name in ids)
