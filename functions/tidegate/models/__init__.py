"""A model's folder: its configuration, closure, checks, golden requests and smoke test."""
