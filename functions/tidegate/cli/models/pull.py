"""`tidegate models pull`: a pushed model as a folder."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.models.stores import open_stores
from tidegate.cli.models.withdraw import parse_model
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.errors import ModelConfigError
from tidegate.ports import ModelStore
from tidegate.ports.model_units import SAMPLES, is_below


@click.command()
@click.argument("model", metavar="MODEL[/VERSION]")
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory that the model's folder is written into.",
)
@STORE_OPTIONS
@AS_JSON
def pull(stores: StoreOptions, model: str, directory: Path, as_json: bool) -> None:
    """Write a pushed model, or its config and one version, into DIRECTORY/MODEL, with its golden requests.

    Every file is checked against the digest that it was pushed with. A file that is there with another content refuses the
    whole pull; then nothing is written.
    """
    name, version = parse_model(model)
    settings = resolve_settings(stores, registry=False)
    files = asyncio.run(_read(open_stores(settings)[0], name, version))
    folder = directory / name
    there = [path for path, content in files.items() if (folder / path).exists() and _other(folder / path, content)]
    if there:
        raise ModelConfigError(
            f"{folder / there[0]} is there with another content, and nothing is overwritten; pull into another directory"
        )
    written = [path for path in files if not (folder / path).exists()]
    try:
        _write(folder, {path: files[path] for path in written})
    except OSError as error:
        raise ModelConfigError(f"{folder} cannot be written: {error}") from error
    if as_json:
        print_json({"ok": True, "bucket": settings.bucket, "folder": str(folder), "written": written})
    else:
        say(f"{folder}: {len(written)} files written, {len(files) - len(written)} there already")


async def _read(store: ModelStore, model: str, version: int | None) -> dict[str, bytes]:
    """The files of a model by path in its folder, each as it was pushed."""
    pushed = await store.versions(model)
    if not pushed or version not in (None, *pushed):
        there = f"; it has {', '.join(map(str, pushed))}" if pushed else ""
        what = f"model {model!r}" if version is None else f"version {version} of model {model!r}"
        raise ModelConfigError(f"{what} was not pushed{there}")
    files: dict[str, bytes] = {}
    for unit in (None, *(pushed if version is None else (version,))):
        for file in await store.files(model, unit):
            content = await store.read(model, file.path)
            if content is None:
                raise ModelConfigError(f"{model}/{file.path} was withdrawn or replaced meanwhile; pull the model again")
            files[file.path] = content
    samples = await store.samples(model)
    return files | {f"{SAMPLES}/{name}": data for name, data in samples.items() if "/" not in name and is_below(name)}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, each whole or not at all, so that a pull that is interrupted can be repeated."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        for number, content in enumerate(files.values()):
            (Path(scratch) / str(number)).write_bytes(content)
        for number, path in enumerate(files):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / str(number)).rename(folder / path)


def _other(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except OSError:
        return True
