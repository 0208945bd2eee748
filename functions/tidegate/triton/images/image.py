"""An image of model servers, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass

ALWAYS_THERE = frozenset({"numpy"})
"""Modules that Triton's Python backend itself needs."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image holds.

    Attributes:
        name: what messages call it.
        backends: the backends that it has.
        modules: the Python modules that it has beside the standard library, by their first names.
        lacks: backends that it is known not to have.
        all_backends: whether `backends` is all there is.
        all_modules: whether `modules` is all there is.
    """

    name: str
    backends: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    all_backends: bool = False
    all_modules: bool = False

    def has_backend(self, name: str) -> bool | None:
        """Whether it has a backend; None where that is not known."""
        if name in self.backends:
            return True
        return False if self.all_backends or name in self.lacks else None

    def has_module(self, name: str) -> bool | None:
        """Whether it has a Python module, by its first name; None where that is not known."""
        if name in self.modules or name in ALWAYS_THERE:
            return True
        return False if self.all_modules else None
