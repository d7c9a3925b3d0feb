"""The paper theatre at 256x256: the drawn world that the built-in models are trained on, and their training."""
