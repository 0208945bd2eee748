"""Checks models by their files alone: nothing is started, imported or written."""

from tidegate.models.lint.checker import check_models

__all__ = ["check_models"]
