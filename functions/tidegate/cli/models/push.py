"""`tidegate models push`: models into the bucket that every shard loads from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli import progress
from tidegate.cli.columns import count, say
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.models.options import IMAGES, MODELS, judged_json, open_repository, open_stores, print_findings
from tidegate.cli.options import DIRECTORY
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.control.claims import claimed_units
from tidegate.errors import ConflictError, ImmutableError, ModelConfigError, StoreError, TidegateError
from tidegate.models.lint.checker import judge_models
from tidegate.settings import Settings

if TYPE_CHECKING:
    from tidegate.aws.model_store import S3ModelStore
    from tidegate.ports import PushPlan, PushProgress, Unit

PLANS_AT_ONCE = 8


@click.command()
@click.argument("directory", type=DIRECTORY)
@MODELS
@click.option("--dry-run", is_flag=True, help="Show what would be sent, or why it is refused; change nothing.")
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
    other files. Then nothing is sent at all. One that was pushed and never live is replaced. What is already there is not
    sent again, so run an interrupted push again to continue it.
    """
    repository = open_repository(directory, models, images)
    settings = resolve_settings(stores, registry=False)
    # Steps first: no ensemble is there without what it calls.
    names = [model.name for model in repository.closure_of(*(models or repository.names()))]
    judged = judge_models(repository, models or repository.names())
    if not as_json:
        print_findings(judged, len(names))
    result: dict[str, Any] = {"bucket": settings.bucket, "dry_run": dry_run, **judged_json(judged)}
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
            shown = _shown_sending(plans)
            for plan in plans:
                if not plan.is_done:
                    await store.push(plan.model, folders[plan.model], shown(plan.model), held)
        except (ImmutableError, ConflictError):
            raise
        except StoreError as error:
            raise StoreError(f"{error}\nwhat was sent is kept: push again to continue") from error
    if as_json:
        print_json({"ok": True, **result, "refused": [], "models": [_as_dict(plan) for plan in plans]})
    else:
        _show(plans, settings.bucket, dry_run=result["dry_run"])


def _as_dict(plan: PushPlan) -> dict[str, Any]:
    return {
        "name": plan.model,
        "versions_added": list(plan.versions),
        "files_sent": [file.path for file in plan.files],
        "sent_bytes": plan.size_bytes,
        "replaced": ["config" if version is None else version for version in plan.replaced],
    }


async def _plan(
    store: S3ModelStore, folders: Mapping[str, Path], held: Collection[Unit]
) -> tuple[list[PushPlan], list[TidegateError]]:
    """Return what there is to do for each model, and why models are refused."""
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


def _shown_sending(plans: Sequence[PushPlan]) -> Callable[[str], PushProgress]:
    """Return what makes the callback of a model, which shows how much of all models was sent."""
    total_bytes = sum(plan.size_bytes for plan in plans)
    sent: dict[str, int] = {}

    def of_model(model: str) -> PushProgress:
        def show(path: str, sent_bytes: int, _total: int) -> None:
            sent[model] = sent_bytes
            progress.note(f"pushing {model}/{path}", sum(sent.values()), total_bytes)

        return show

    return of_model


def _refuse(as_json: bool, result: Mapping[str, Any], words: str, refused: Sequence[TidegateError]) -> None:
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


def _show(plans: Sequence[PushPlan], bucket: str, *, dry_run: bool) -> None:
    from rich.filesize import decimal

    done = [each for each in plans if each.files or each.versions or each.replaced]
    verb = "would push" if dry_run else "pushed"
    for each in done:
        versions = ", ".join(map(str, each.versions))
        added = f"version{'' if len(each.versions) == 1 else 's'} {versions}" if versions else "no new version"
        say(f"{verb} {each.model}: {added}; {count(len(each.files), 'file')}, {decimal(each.size_bytes)}")
        if each.replaced:
            units = ["its config" if version is None else f"version {version}" for version in each.replaced]
            say(f"  in place of what was never live: {', '.join(units)}")
    files = count(sum(len(each.files) for each in done), "file")
    size = decimal(sum(each.size_bytes for each in done))
    say(
        f"bucket {bucket}: {files} of {count(len(done), 'model')} {'to send' if dry_run else 'sent'}, {size}; "
        f"{len(plans) - len(done)} there already"
    )
