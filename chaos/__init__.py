"""Harms a running stack under constant load, and states what callers notice: `make chaos` writes docs/resilience.md."""
