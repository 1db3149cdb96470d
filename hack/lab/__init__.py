"""What demo, end-to-end tests and benchmarks share: a cluster with Slipway on it, and Git repositories for it."""
