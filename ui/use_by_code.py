"""The section of the page that shows how programs use it: texts to copy, which the tests run as they are."""

import gradio as gr

from ui.languages import say

ADDRESS = "http://127.0.0.1:7860"  # stands in the texts for the page's own

VIDEO = f"""\
# pip install gradio_client
from gradio_client import Client

client = Client("{ADDRESS}")

job = client.submit("a robot in blue waving on the beach", seed=7, steps=10, api_name="/text_to_video")
for _, news in job:
    print(news.get("stage"), news.get("step"), "of", news.get("total"))

video, facts = job.result()
print(video, facts["seconds"])
"""
EDIT = f"""\
# pip install gradio_client
from gradio_client import Client, handle_file

client = Client("{ADDRESS}")

_, tuned = client.predict(
    handle_file("dance.mp4"), "a person in red dances on the beach", steps=20, api_name="/tune"
)
video, facts = client.predict(
    tuned["job"], "a robot in red dances on the moon", tuned["visitor_id"], steps=10, api_name="/edit"
)
print(video)
"""
STOP = f"""\
# pip install gradio_client
from gradio_client import Client

client = Client("{ADDRESS}")

job = client.submit("a bear dances in the snow", steps=100, api_name="/text_to_video")
for _, news in job:
    client.predict(news["job"], news["visitor_id"], api_name="/stop")
    break
print("stopped")
"""
CURL = f"""\
page={ADDRESS}
event=$(curl -s $page/gradio_api/call/v2/text_to_video -H "Content-Type: application/json" \\
  -d '{{"prompt": "a robot in blue waving on the beach", "seed": 7, "steps": 10}}' | cut -d '"' -f 4)
file=$(curl -sN $page/gradio_api/call/text_to_video/$event | grep -A 1 "event: complete" |
  grep -o '"path": "[^"]*' | cut -d '"' -f 4)
curl -s -o robot.mp4 "$page/gradio_api/file=$file"
"""
TEXTS = {
    "A video": (VIDEO, "python"),
    "An edit of a clip": (EDIT, "python"),
    "Stop": (STOP, "python"),
    "curl": (CURL, "shell"),
}

_OWN_ADDRESS = f"""(...texts) => {{
  const own = location.origin + location.pathname.replace(/\\/$/, '');
  return texts.map(text => text.replaceAll('{ADDRESS}', own));
}}"""


def section(demo: gr.Blocks) -> None:
    """Builds the section where it is called, in `demo`, which is open."""
    with gr.Accordion(say("Use by code"), open=False, elem_id="use-by-code"):
        gr.HTML(
            say(
                "<p>Every action of this page can be called by a program; its jobs wait in the same queue, and have "
                "the same limits. What is left out is what the model's makers recommend. All parameters are listed "
                "under <b>Use via API</b> at the foot of the page. A private Space wants "
                "<code>Client(…, token=…)</code>, and curl the header <code>Authorization: Bearer …</code>.</p>"
            )
        )
        with gr.Tabs():
            shown = []
            for title, (text, language) in TEXTS.items():
                with gr.Tab(say(title)):
                    shown.append(gr.Code(text, language=language, interactive=False, show_label=False, wrap_lines=True))
    demo.load(None, shown, shown, js=_OWN_ADDRESS, api_visibility="private", show_progress="hidden")
