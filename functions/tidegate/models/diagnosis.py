"""A `Diagnose`: the errors in the files of a pushed model that Triton refused."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from tidegate.finding_kinds import Severity
from tidegate.model_layout import CONFIG
from tidegate.models.closure import read_closure
from tidegate.ports import ModelStore

logger = logging.getLogger(__name__)

MOST_ERRORS = 10


class StoredDiagnosis:
    """Checks the configs and the code of pushed models. Artefacts are not fetched, and so not checked."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def __call__(self, model: str) -> Sequence[str]:
        self._store.forget_drafts()
        with tempfile.TemporaryDirectory(prefix="tidegate-diagnosis-") as folder:
            try:
                await read_closure([model], partial(self._fetch, Path(folder)))
                return await asyncio.to_thread(_errors, Path(folder), model)
            except Exception as error:  # noqa: BLE001  # no failure here may hide the refusal that it explains
                logger.warning("the files of model %r could not be checked: %s", model, type(error).__name__)
                return ()

    async def _fetch(self, folder: Path, names: Collection[str]) -> Sequence[str]:
        """Fetch the configs and code of models, with empty files for the rest; return the models that they call."""
        for name in names:
            versions = await self._store.versions(name)
            units = (None, *versions) if name and versions else ()
            for path in [file.path for version in units for file in await self._store.files(name, version)]:
                place = folder / name / path
                place.parent.mkdir(parents=True, exist_ok=True)
                read = path == CONFIG or place.suffix == ".py"
                place.write_bytes((await self._store.read(name, path) or b"") if read else b"-")
        return await asyncio.to_thread(_called, folder, names)


def _called(folder: Path, names: Collection[str]) -> Sequence[str]:
    from tidegate.models.lint.checker import code_calls
    from tidegate.models.lint.folder import Repository

    repository = Repository(folder)
    return [each for name in names for each in (*repository.steps(name), *code_calls(repository, name))]


def _errors(folder: Path, model: str) -> tuple[str, ...]:
    from tidegate.models.lint.checker import check_models

    found = [each for each in check_models(folder, [model]) if each.severity is Severity.ERROR]
    located = [str(each) for each in found if each.file.endswith((CONFIG, ".py")) and each.kind != "import-missing"]
    return tuple(located[:MOST_ERRORS])
