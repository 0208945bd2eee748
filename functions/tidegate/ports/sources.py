"""The content of a publish: rules that were checked, and the folder of the models that they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.placement import FleetDemand
from tidegate.ports.models import ModelCatalog


@dataclass(frozen=True, slots=True)
class CheckedRules:
    """Rules without errors: their unresolved bundle, their demand on the fleet, and other findings as texts."""

    bundle: bytes
    demand: FleetDemand = FleetDemand()  # noqa: RUF009  # immutable
    summary: str = ""
    notes: tuple[str, ...] = ()


class RulesSource(Protocol):
    async def check(self) -> CheckedRules:
        """Compile and analyse them.

        Raises:
            TidegateError: they have errors; the message has every one.
        """
        ...

    async def test(self, checked: CheckedRules) -> str:
        """Run their cases. Return a text about the result.

        Raises:
            TidegateError: a case fails; the message says which and why.
        """
        ...


class ModelsSource(Protocol):
    """A folder of models, any of which may have been pushed already."""

    @property
    def catalog(self) -> ModelCatalog: ...

    def folder(self, model: str) -> Path | None:
        """Return the folder of a model; None if it has none here."""
        ...

    async def size_bytes(self, model: str, version: int) -> int | None:
        """Return the total size of a version's files in the folder; None if it has none here."""
        ...

    async def check(self, models: Iterable[str]) -> tuple[str, ...]:
        """Check models of the folder. Return warnings in words.

        Raises:
            ModelConfigError: they have errors; the message has every one.
        """
        ...
