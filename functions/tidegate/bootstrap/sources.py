"""What a person publishes: a directory of rules and a folder of models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tidegate.control.rules_watch import compile_rules
from tidegate.control.sources import CheckedRules
from tidegate.errors import ModelConfigError
from tidegate.ports import ModelCatalog, ModelStore
from tidegate.triton.catalog import DirectoryFiles, OverlayFiles, StoreFiles, TritonCatalog


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """A `RulesSource` of a directory that is compiled and not analysed: for someone who writes rules and watches them."""

    path: Path

    async def check(self) -> CheckedRules:
        """Compile them in a child process.

        Raises:
            TidegateError: they do not compile.
        """
        return CheckedRules(await compile_rules(self.path), summary="the rules compile")

    async def test(self, checked: CheckedRules) -> str:  # noqa: ARG002  # the protocol's
        """Cases are for `tidegate rules test` and `tidegate publish`."""
        return "not while rules are followed"


@dataclass(frozen=True, slots=True)
class FolderModels:
    """A `ModelsSource` of a folder, over what was pushed before. The folder is read anew by every `catalog`.

    A `strict` one refuses models with errors; another one only tells of them, and leaves it to Triton whether they load.
    """

    path: Path
    store: ModelStore
    strict: bool = True

    @property
    def catalog(self) -> ModelCatalog:
        """The models as they will be when the folder is pushed."""
        return TritonCatalog(OverlayFiles(DirectoryFiles(self.path), StoreFiles(self.store)))

    def folder(self, model: str) -> Path | None:
        """The folder of a model; None where it has none here."""
        folder = self.path / model
        return folder if folder.is_dir() else None

    async def check(self, models: Iterable[str]) -> tuple[str, ...]:
        """Check models of the folder by their files; what is not refused, in words.

        Raises:
            ModelConfigError: they have errors, and this is strict; the message has every one.
        """
        from tidegate.triton.checks import check_models

        findings = await asyncio.to_thread(check_models, self.path, tuple(models))
        errors = [str(finding) for finding in findings if finding.severity == "error"]
        if errors and self.strict:
            raise ModelConfigError("the models have errors\n" + "\n".join(errors))
        return tuple(str(finding) for finding in findings)
