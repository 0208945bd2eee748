"""`tidegate models push`: models into the bucket that every shard loads from."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.models.options import IMAGES, MODELS, accepted_json, open_repository, print_findings
from tidegate.cli.models.stores import open_stores
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.control.drafts import claimed_units
from tidegate.errors import ConflictError, ImmutableError, ModelConfigError, StoreError, TidegateError
from tidegate.settings import Settings
from tidegate.triton.checks import Repository, judge_models

if TYPE_CHECKING:
    from tidegate.aws.model_store import S3ModelStore
    from tidegate.ports import PushPlan, Unit

ModelProgress = Callable[[str, str, int], None]
"""Callback with a model, the path of one of its files, and how many of the model's bytes have been sent."""

PLANS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of one model: the versions that were (or would be) added, what was (or would be) sent, and the drafts that
    it took the place of (None: the config)."""

    model: str
    versions: tuple[int, ...]
    files: tuple[str, ...]
    size_bytes: int
    replaced: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, plan: PushPlan) -> Pushed:
        """What a plan would do."""
        files = tuple(file.path for file in plan.files)
        return cls(plan.model, plan.versions, files, plan.size_bytes, plan.replaced)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.model,
            "versions_added": list(self.versions),
            "files_sent": list(self.files),
            "sent_bytes": self.size_bytes,
            "replaced": ["config" if version is None else version for version in self.replaced],
        }


@click.command()
@click.argument("directory", type=DIRECTORY)
@MODELS
@click.option("--dry-run", is_flag=True, help="Say what would be sent, or why it is refused; change nothing.")
@IMAGES
@STORE_OPTIONS
@AS_JSON
def push(
    stores: StoreOptions,
    directory: Path,
    models: tuple[str, ...],
    images: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push models, with everything that they call, to the bucket: all of DIRECTORY, or those named.

    Models with errors that `tidegate models check` finds are refused, and so is a config or a version that was live with
    other files. Then nothing is sent at all. One that was pushed and never live is replaced. What is there already is not
    sent again, so an interrupted push goes on where it ended when it is run again.
    """
    repository = open_repository(directory, models, images)
    settings = resolve_settings(stores, registry=False)
    names = _steps_first(repository, models or repository.names())
    judged = judge_models(repository, models or repository.names())
    if not as_json:
        print_findings(judged, len(names))
    result: dict[str, Any] = {
        "bucket": settings.bucket,
        "dry_run": dry_run,
        "findings": [finding.as_dict() for finding in judged.findings],
        "accepted": accepted_json(judged),
    }
    if judged.errors:
        _refuse(as_json, result, "nothing was pushed: the models have errors", [])
    asyncio.run(_push(settings, {name: directory / name for name in names}, result, as_json=as_json))


async def _push(settings: Settings, folders: Mapping[str, Path], result: dict[str, Any], *, as_json: bool) -> None:
    assert settings.bucket is not None
    store, bundles = open_stores(settings)
    held = await claimed_units(bundles)
    plans, refused = await _plan(store, folders, held)
    if refused:
        _refuse(as_json, result, "nothing was pushed", refused)
    if not result["dry_run"]:
        try:
            with _progress(plans, shown=not as_json) as progress:
                await _send(store, folders, plans, held, progress)
        except (ImmutableError, ConflictError):
            raise
        except StoreError as error:
            raise StoreError(f"{error}\nwhat was sent stays: push again, and it goes on from there") from error
    pushed = [Pushed.of(plan) for plan in plans]
    if as_json:
        print_json({"ok": True, **result, "refused": [], "models": [each.as_dict() for each in pushed]})
    else:
        _show(pushed, settings.bucket, dry_run=result["dry_run"])


async def _plan(
    store: S3ModelStore, folders: Mapping[str, Path], held: Collection[Unit]
) -> tuple[list[PushPlan], list[TidegateError]]:
    """What there is to do for each model, and why models are refused."""
    turns = asyncio.Semaphore(PLANS_AT_ONCE)

    async def plan(model: str, folder: Path) -> PushPlan | TidegateError:
        async with turns:
            try:
                return await store.plan(model, folder, held)
            except (ImmutableError, ConflictError, ModelConfigError) as error:
                return error

    # Side by side: most pushes find most models there, and wait for S3 to say so.
    found = await asyncio.gather(*(plan(model, folder) for model, folder in folders.items()))
    refused = [each for each in found if isinstance(each, TidegateError)]
    return [each for each in found if not isinstance(each, TidegateError)], refused


async def _send(
    store: S3ModelStore,
    folders: Mapping[str, Path],
    plans: Sequence[PushPlan],
    held: Collection[Unit],
    progress: ModelProgress,
) -> None:
    for plan in plans:
        if not plan.is_done:

            def sent(path: str, sent_bytes: int, _total: int, model: str = plan.model) -> None:
                progress(model, path, sent_bytes)

            await store.push(plan.model, folders[plan.model], sent, held)


@contextlib.contextmanager
def _progress(plans: Sequence[PushPlan], *, shown: bool) -> Iterator[ModelProgress]:
    """A progress bar over all bytes on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    sizes = {plan.model: plan.size_bytes for plan in plans}
    sent: dict[str, int] = {}
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal and any(sizes.values())),
    ) as bar:
        task = bar.add_task("pushing", total=sum(sizes.values()))

        def progress(model: str, path: str, sent_bytes: int) -> None:
            sent[model] = sent_bytes
            bar.update(task, completed=sum(sent.values()), description=f"{model}/{path}")

        yield progress


def _steps_first(repository: Repository, names: Sequence[str]) -> tuple[str, ...]:
    """The models with everything that they call, each after what it calls: no ensemble is there without its steps."""
    ordered: dict[str, None] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in ordered or name in above or repository.model(name) is None:
            return
        for step in repository.steps(name):
            add(step, (*above, name))
        ordered[name] = None

    for name in names:
        add(name, ())
    return tuple(ordered)


def _refuse(as_json: bool, result: Mapping[str, Any], words: str, refused: Sequence[TidegateError]) -> None:
    """End with exit code 1 and say why."""
    if as_json:
        reasons = [
            {
                "model": error.model if isinstance(error, ImmutableError) else None,
                "files": list(error.paths) if isinstance(error, ImmutableError) else [],
                "error": str(error),
            }
            for error in refused
        ]
        print_json({"ok": False, **result, "refused": reasons, "models": []})
    else:
        for error in refused:
            say(f"error: {error}", err=True)
        say(words, err=True)
    raise click.exceptions.Exit(1)


def _show(pushed: Sequence[Pushed], bucket: str, *, dry_run: bool) -> None:
    done = [each for each in pushed if each.files or each.versions or each.replaced]
    verb = "would push" if dry_run else "pushed"
    for each in done:
        versions = ", ".join(map(str, each.versions))
        added = f"version{'' if len(each.versions) == 1 else 's'} {versions}" if versions else "no new version"
        say(f"{verb} {each.model}: {added}; {_files(len(each.files))}, {_size(each.size_bytes)}")
        if each.replaced:
            units = ["its config" if version is None else f"version {version}" for version in each.replaced]
            say(f"  in place of what was never live: {', '.join(units)}")
    same = len(pushed) - len(done)
    total = sum(each.size_bytes for each in done)
    count = sum(len(each.files) for each in done)
    say(
        f"bucket {bucket}: {_files(count)} of {len(done)} model{'' if len(done) == 1 else 's'} "
        f"{'to send' if dry_run else 'sent'}, {_size(total)}; {same} there already"
    )


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _size(size_bytes: int) -> str:
    from rich.filesize import decimal

    return decimal(size_bytes)
