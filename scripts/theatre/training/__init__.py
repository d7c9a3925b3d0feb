"""One file a stage; scripts/train_theatre.py lists them in order."""
