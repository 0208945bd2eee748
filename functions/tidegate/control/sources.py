"""What is published: rules that were checked, and the folder of the models that they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.ports import ModelCatalog
from tidegate.rules.placement import FleetDemand


@dataclass(frozen=True, slots=True)
class CheckedRules:
    """Rules without an error: their bundle, not resolved yet, what they say about placing, and in words what else was
    found."""

    bundle: bytes
    demand: FleetDemand = FleetDemand()  # noqa: RUF009  # immutable
    summary: str = ""
    notes: tuple[str, ...] = ()


class RulesSource(Protocol):
    """The rules to publish."""

    async def check(self) -> CheckedRules:
        """Compile and analyse them.

        Raises:
            TidegateError: they have errors; the message has every one.
        """
        ...

    async def test(self, checked: CheckedRules) -> str:
        """Run their cases; what came of it, in words.

        Raises:
            TidegateError: a case fails; the message says which and why.
        """
        ...


class ModelsSource(Protocol):
    """A folder of models, any of which may have been pushed already."""

    @property
    def catalog(self) -> ModelCatalog:
        """The models as they will be when the folder is pushed."""
        ...

    def folder(self, model: str) -> Path | None:
        """The folder of a model; None where it has none here."""
        ...

    async def size_bytes(self, model: str, version: int) -> int | None:
        """How big the files of a version in the folder are; None where it has none here."""
        ...

    async def check(self, models: Iterable[str]) -> tuple[str, ...]:
        """Check models of the folder; warnings, in words.

        Raises:
            ModelConfigError: they have errors; the message has every one.
        """
        ...


@dataclass(frozen=True, slots=True)
class GivenRules:
    """A `RulesSource` of a bundle that was checked elsewhere."""

    bundle: bytes
    demand: FleetDemand = FleetDemand()  # noqa: RUF009  # immutable

    async def check(self) -> CheckedRules:
        """The bundle."""
        return CheckedRules(self.bundle, self.demand, "checked before")

    async def test(self, checked: CheckedRules) -> str:  # noqa: ARG002  # the protocol's
        """Nothing is left to test."""
        return "tested before"
