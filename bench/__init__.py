"""The source of the figures in docs/performance.md: `make bench` runs `python -m bench`."""
