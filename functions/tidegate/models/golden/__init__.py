"""Golden requests: what a model is asked before it serves, and the checks of its answers."""
