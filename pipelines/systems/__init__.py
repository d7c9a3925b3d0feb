"""The systems: the shared denoising loop, one published system a file, and what measures or finishes a video."""
