"""Scripts around the app: training the miniatures, parity checks, benchmarks."""
