"""How fast and how big the systems are: python -m scripts.benchmark."""
