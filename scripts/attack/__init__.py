"""An adversary for the app: `python -m scripts.attack` attacks it from outside, over HTTP, and tells what fell."""
