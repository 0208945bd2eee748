"""Builds the example models' artefacts from four pinned wheels: `python -m training --out triton_models`.

docs/models.md says what is built from what, and under which licences.
"""
