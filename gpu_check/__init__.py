"""A check of the stack on a machine with an NVIDIA GPU, Python 3.12 and PyTorch, and no network."""
