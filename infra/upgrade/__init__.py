"""Checks whether a deployed stage can be updated to the synthesized one: reads both, compares them, and explains refusals."""
