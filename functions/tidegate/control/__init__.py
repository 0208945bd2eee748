"""Keeps models where the rules need them: assign, load, validate, swap, drain."""
