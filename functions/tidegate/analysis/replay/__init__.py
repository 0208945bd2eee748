"""Replays recorded requests: streams in, counts and statistical tests out. Pure but for reading the given stream."""
