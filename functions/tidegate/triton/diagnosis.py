"""What the files of a pushed model show after Triton refused it: a `Diagnose`."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tidegate.ports import ModelStore
from tidegate.triton.closure import closure
from tidegate.triton.model_config import CONFIG

logger = logging.getLogger(__name__)

MOST_ERRORS = 10


class StoredDiagnosis:
    """Checks the configs and the code of pushed models. Artefacts are not fetched, so nothing is said of them."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def __call__(self, model: str) -> Sequence[str]:
        """See `Diagnose`."""
        self._store.forget_drafts()
        with tempfile.TemporaryDirectory(prefix="tidegate-diagnosis-") as folder:
            try:
                await closure([model], partial(self._fetch, Path(folder)))
                return await asyncio.to_thread(_errors, Path(folder), model)
            except Exception as error:  # noqa: BLE001  # whatever fails here must not hide the refusal that it explains
                logger.warning("the files of model %r could not be checked: %s", model, type(error).__name__)
                return ()

    async def _fetch(self, folder: Path, name: str) -> Sequence[str]:
        """Fetch what is read of a model; the models that it calls."""
        versions = await self._store.versions(name)
        if not versions:
            return ()
        paths = [file.path for version in (None, *versions) for file in await self._store.files(name, version)]
        for path in paths:
            place = folder / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            read = path == CONFIG or place.suffix == ".py"
            place.write_bytes((await self._store.read(name, path) or b"") if read else b"-")
        return await asyncio.to_thread(_called, folder, name)


def _called(folder: Path, name: str) -> Sequence[str]:
    from tidegate.triton.checks import Repository, code_calls

    repository = Repository(folder)
    return (*repository.steps(name), *code_calls(repository, name))


def _errors(folder: Path, model: str) -> tuple[str, ...]:
    from tidegate.triton.checks import check_models

    found = [each for each in check_models(folder, [model]) if each.severity == "error"]
    located = [str(each) for each in found if each.file.endswith((CONFIG, ".py")) and each.kind != "import-missing"]
    return tuple(located[:MOST_ERRORS])
