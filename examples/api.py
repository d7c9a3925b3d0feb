"""A clip is tuned on and told again by a running app, from any machine with `pip install gradio_client`:

python examples/api.py http://127.0.0.1:7860 dance.mp4 "a person in red dances" "a robot dances on the moon"
"""

import sys

from gradio_client import Client, handle_file


def main(page: str, clip: str, shown: str, wanted: str, tuning_steps: int, steps: int) -> None:
    client = Client(page, verbose=False)
    tuning = client.submit(handle_file(clip), shown, steps=tuning_steps, api_name="/tune")
    for _, news in tuning:
        print(news.get("stage"), news.get("step"), "of", news.get("total"))
    _, tuned = tuning.result()
    video, facts = client.predict(tuned["job"], wanted, tuned["visitor_id"], steps=steps, api_name="/edit")
    print(f"{video} in {facts['seconds']:.0f} seconds")


if __name__ == "__main__":
    page, clip, shown, wanted, *numbers = sys.argv[1:]
    tuning_steps, steps = map(int, numbers or (20, 10))
    main(page, clip, shown, wanted, tuning_steps, steps)
