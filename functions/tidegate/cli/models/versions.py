"""`tidegate models new|version|pull|withdraw`: models and their versions, in a folder and in the bucket."""

from __future__ import annotations

import asyncio
import difflib
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from tidegate.cli import progress
from tidegate.cli.columns import confirmed, say
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.models.options import open_stores, parse_model
from tidegate.cli.options import DIRECTORY, FOLDER
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.control.claims import claimed_units
from tidegate.errors import ModelConfigError
from tidegate.model_layout import SAMPLES
from tidegate.model_units import check_name, is_below
from tidegate.models.retraining import NextVersion, apply_version, copy_model, plan_version
from tidegate.ports import ModelStore
from tidegate.settings import Settings

IN_MODELS = click.option(
    "--models", type=DIRECTORY, default="triton_models", show_default=True, help="The Triton model repository."
)


@click.command()
@click.argument("name")
@click.option("--from", "source", required=True, metavar="MODEL", help="The model that is copied.")
@IN_MODELS
@AS_JSON
def new(name: str, source: str, models: Path, as_json: bool) -> None:
    """Copy a model's folder to NAME, which its configs say then. An ensemble's steps stay those that it calls.

    Nothing is overwritten, and no rule is changed.
    """
    check_name(name)
    folder = copy_model(models, source, name)
    if as_json:
        print_json({"ok": True, "model": name, "from": source, "folder": str(folder)})
    else:
        say(f"{folder}: copied from {source}. Next: edit it, and name it under models in fleet.yaml and in a rule")


@click.command()
@click.argument("model", metavar="MODEL[/VERSION]")
@IN_MODELS
@click.option("--rules", type=DIRECTORY, help="The rules directory; routing_rules where there is one.")
@click.option("--keep-pins", is_flag=True, help="Leave ensembles and rules that name the version before as they are.")
@click.option("--offline", is_flag=True, help="Do not look up what was pushed: copy the version's files.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Show what would be changed; change nothing.")
@STORE_OPTIONS
@AS_JSON
def version(
    stores: StoreOptions,
    model: str,
    models: Path,
    rules: Path | None,
    keep_pins: bool,
    offline: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the changed files of MODEL its next version, and repin ensembles and rules. `tidegate publish` makes it live.

    The version whose files differ from those that were pushed becomes a new version folder, and its old folder gets back
    what was pushed. Steps of ensembles, rules, aliases and cases that pin the old version then name the new one. An ensemble
    that was live is copied to another name for that, because all versions of one share a config. The changes are shown as a
    diff first, and must be confirmed.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json asks nothing: give --yes, or --dry-run")
    name, before = parse_model(model)
    if rules is None and Path("routing_rules").is_dir():
        rules = Path("routing_rules")
    store: ModelStore | None = None
    if not offline:
        store, _ = open_stores(resolve_settings(stores, registry=False))
    plan = asyncio.run(plan_version(models, rules, store, name, before, keep_pins=keep_pins))
    if not as_json:
        _show_plan(plan, models)
    if not dry_run:
        if not (yes or confirmed("Do it?")):
            raise click.exceptions.Exit(1)
        apply_version(models, plan)
    if as_json:
        print_json(
            {
                "ok": True,
                "dry_run": dry_run,
                "model": plan.model,
                "before": plan.before,
                "version": plan.version,
                "restored": plan.restored is not None,
                "copies": dict(plan.copies),
                "files": [str(path) for path in plan.edits],
                "diff": "".join(_diff(plan)),
                "notes": list(plan.notes),
            }
        )
    elif dry_run:
        say("dry run: nothing was changed")
    else:
        publish = shlex.join(["tidegate", "publish", "--rules", str(rules or "routing_rules"), "--models", str(models)])
        # A stack that follows the rules publishes when one of their files changes, not when a model does.
        names_it = rules is not None and any(path.is_relative_to(rules) for path in plan.edits)
        follows = ", unless a stack that follows these rules publishes it" if names_it else ""
        say(f"{plan.model}/{plan.version} is ready. Make it live{follows}:")
        say(f"  {publish}")


def _show_plan(plan: NextVersion, models: Path) -> None:
    folder = models / plan.model
    if plan.restored is None:
        say(f"{folder / str(plan.before)} is copied to {folder / str(plan.version)}")
    else:
        say(
            f"{folder / str(plan.before)} becomes {folder / str(plan.version)}; {plan.before} gets back what was pushed"
        )
    for ensemble, copy in plan.copies.items():
        say(f"{models / ensemble} was live, so it is copied to {models / copy}")
    for line in _diff(plan):
        progress.quiet()
        click.echo(line, nl=False)
    for note in plan.notes:
        say(f"note: {note}")


def _diff(plan: NextVersion) -> Iterator[str]:
    for path, (before, after) in plan.edits.items():
        lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(path), str(path), n=1)
        yield from (line if line.endswith("\n") else line + "\n" for line in lines)


@click.command()
@click.argument("model", metavar="MODEL[/VERSION]")
@click.option(
    "--to",
    "directory",
    required=True,
    type=FOLDER,
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
    files = asyncio.run(_files_of(open_stores(settings)[0], name, version))
    folder = directory / name
    there = [path for path, content in files.items() if (folder / path).exists() and _other(folder / path, content)]
    if there:
        raise ModelConfigError(
            f"{folder / there[0]} is there with another content, and nothing is overwritten; pull into another directory"
        )
    written = [path for path in files if not (folder / path).exists()]
    try:
        _write_files(folder, {path: files[path] for path in written})
    except OSError as error:
        raise ModelConfigError(f"{folder} cannot be written: {error}") from error
    if as_json:
        print_json({"ok": True, "bucket": settings.bucket, "folder": str(folder), "written": written})
    else:
        say(f"{folder}: {len(written)} files written, {len(files) - len(written)} there already")


async def _files_of(store: ModelStore, model: str, version: int | None) -> dict[str, bytes]:
    """Return the files of a model by path in its folder, each as it was pushed."""
    pushed = await store.versions(model)
    if not pushed or version not in (None, *pushed):
        there = f"; it has {', '.join(map(str, pushed))}" if pushed else ""
        raise ModelConfigError(f"{_named(model, version)} was not pushed{there}")
    files: dict[str, bytes] = {}
    for unit in (None, *(pushed if version is None else (version,))):
        for file in await store.files(model, unit):
            content = await store.read(model, file.path)
            if content is None:
                raise ModelConfigError(f"{model}/{file.path} was withdrawn or replaced meanwhile; pull the model again")
            files[file.path] = content
    samples = await store.samples(model)
    return files | {f"{SAMPLES}/{name}": data for name, data in samples.items() if "/" not in name and is_below(name)}


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
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


@click.command()
@click.argument("model", metavar="MODEL[/VERSION]")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, or why it is refused; change nothing.")
@STORE_OPTIONS
@AS_JSON
def withdraw(stores: StoreOptions, model: str, dry_run: bool, as_json: bool) -> None:
    """Remove a model, or one version of it, from the bucket, where it was never live.

    Its name and its version numbers can be used again. What was live stays, since a rollback may need it, and so does what
    somebody publishes just now. Exit code 1: it is refused, or there is nothing of it.
    """
    name, version = parse_model(model)
    settings = resolve_settings(stores, registry=False)
    removed = asyncio.run(_withdraw(settings, name, version, dry_run=dry_run))
    if as_json:
        units = ["config" if each is None else each for each in removed]
        print_json({"ok": True, "bucket": settings.bucket, "dry_run": dry_run, "model": name, "removed": units})
    else:
        words = ["config" if each is None else f"version {each}" for each in removed]
        say(f"{'would remove' if dry_run else 'removed'} {name}: {', '.join(words)}")


async def _withdraw(settings: Settings, model: str, version: int | None, *, dry_run: bool) -> Sequence[int | None]:
    models, bundles = open_stores(settings)
    held = await claimed_units(bundles)
    removed = await models.withdraw(model, version, held=held, dry_run=dry_run)
    if not removed:
        what = _named(model, version)
        raise ModelConfigError(f"there is no {what} in bucket {settings.bucket}; `tidegate status` names what is live")
    return removed


def _named(model: str, version: int | None) -> str:
    return f"model {model!r}" if version is None else f"version {version} of model {model!r}"
