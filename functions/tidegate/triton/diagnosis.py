"""What the files of a pushed model show after Triton refused it: a `Diagnose`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tidegate.errors import TidegateError
from tidegate.ports import ModelStore
from tidegate.triton.model_config import CONFIG, parse_config

MOST_ERRORS = 10


class StoredDiagnosis:
    """Checks the configs and the code of pushed models. Artefacts are not fetched, so nothing is said of them."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def __call__(self, model: str) -> Sequence[str]:
        """See `Diagnose`."""
        with tempfile.TemporaryDirectory(prefix="tidegate-diagnosis-") as folder:
            try:
                await self._fetch(model, Path(folder))
                return await asyncio.to_thread(_errors, Path(folder), model)
            except (TidegateError, OSError):
                # It is about to be said that a load was refused: a store that fails now must not hide that.
                return ()

    async def _fetch(self, model: str, folder: Path) -> None:
        pending, seen = [model], {model}
        while pending:
            name = pending.pop()
            versions = await self._store.versions(name)
            if not versions:
                continue
            paths = [file.path for version in (None, *versions) for file in await self._store.files(name, version)]
            for path in paths:
                place = folder / name / path
                place.parent.mkdir(parents=True, exist_ok=True)
                read = path == CONFIG or place.suffix == ".py"
                place.write_bytes((await self._store.read(name, path) or b"") if read else b"-")
            config = parse_config(await self._store.read(name, CONFIG), name, f"{name}/{CONFIG}")
            for step in config.ensemble_scheduling.step:
                if step.model_name not in seen:
                    seen.add(step.model_name)
                    pending.append(step.model_name)


def _errors(folder: Path, model: str) -> tuple[str, ...]:
    from tidegate.triton.checks import check_models

    found = [each for each in check_models(folder, [model]) if each.severity == "error"]
    located = [str(each) for each in found if each.file.endswith((CONFIG, ".py")) and each.kind != "import-missing"]
    return tuple(located[:MOST_ERRORS])
