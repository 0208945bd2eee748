"""Run and fill Triton servers: directory, supervisor, probe, healing."""
