"""The drawn world: a paper theatre that the built-in miniature models are trained on."""
