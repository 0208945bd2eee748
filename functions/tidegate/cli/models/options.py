"""Shared by the models commands: arguments, and printing of findings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import count, say
from tidegate.errors import ModelConfigError
from tidegate.finding_kinds import Severity
from tidegate.language.words import did_you_mean
from tidegate.model_layout import CONFIG, version_of
from tidegate.models.images.image import find_image
from tidegate.models.lint.accepted import FILE, Judged
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.folder import Repository
from tidegate.settings import Settings

if TYPE_CHECKING:
    from tidegate.aws.bundle_store import S3BundleStore
    from tidegate.aws.model_store import S3ModelStore

MODELS = click.argument("models", nargs=-1, metavar="[MODEL]...")
IMAGES = click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME_OR_MANIFEST",
    help="What will serve the models: one of NVIDIA's images, a manifest, or `local` for this machine's Triton.",
)


def open_repository(
    directory: Path, models: Iterable[str] = (), images: Iterable[str] = (), *, hint: str = "DIRECTORY"
) -> Repository:
    """Return the repository in a directory; a directory that is none, or that lacks one of `models`, is wrong usage.

    `images` name what will serve its models: see `find_image`. `hint` is the parameter that named the directory.
    """
    try:
        repository = Repository(directory, image=tuple(map(find_image, images)))
    except ModelConfigError as error:
        raise click.BadParameter(str(error), param_hint="--image") from error
    try:
        names = repository.names()
    except OSError as error:
        raise click.BadParameter(f"{directory} cannot be read: {error.strerror}", param_hint=hint) from error
    if (directory / CONFIG).is_file():
        around = f"give the repository around it: {directory.resolve().parent}"
        raise click.BadParameter(f"{directory} is a model, not a model repository; {around}", param_hint=hint)
    if not any(_holds_model(directory / name) for name in names):
        message = f"{directory} holds no model; a model repository has one folder for each model"
        raise click.BadParameter(message, param_hint=hint)
    for name in models:
        if name not in names:
            meant = did_you_mean(name, set(names), "model")
            raise click.BadParameter(f"unknown model {name!r}: {meant}", param_hint="MODEL")
    return repository


def _holds_model(folder: Path) -> bool:
    try:
        return any(entry.name == CONFIG or entry.name.isdecimal() for entry in folder.iterdir())
    except OSError:
        return False


def print_findings(judged: Judged, checked: int, *, err: bool = False, most: int | None = None) -> None:
    """Print findings, errors first, and their number; on standard error where the output itself is something else.

    `most` is how many warnings of a kind are printed; None: all.
    """
    for finding in judged.errors:
        say(str(finding), err=err)
    kinds: dict[str, list[ModelFinding]] = {}
    for finding in judged.findings:
        if finding.severity is Severity.WARNING:
            kinds.setdefault(finding.kind, []).append(finding)
    for kind, warnings in kinds.items():
        for finding in warnings[:most]:
            say(str(finding), err=err)
        if most is not None and len(warnings) > most:
            say(f"… and {len(warnings) - most} more of warning[{kind}]; --verbose lists them", err=err)
    if judged.findings:
        errors, others = len(judged.errors), len(judged.findings) - len(judged.errors)
        found = f"{count(errors, 'error')}, {count(others, 'warning')} in {count(checked, 'model')}"
        say(found, err=err)
    if judged.accepted:
        say(f"{count(len(judged.accepted), 'warning')} accepted in {FILE}", err=err)


def judged_json(judged: Judged) -> dict[str, Any]:
    """Return the findings, and the accepted warnings with the reason of each, as members of a JSON object."""
    return {
        "findings": [finding.as_dict() for finding in judged.findings],
        "accepted": [{**finding.as_dict(), "reason": reason} for finding, reason in judged.accepted],
    }


def parse_model(text: str) -> tuple[str, int | None]:
    """Return the model and the version (None: left out) that an argument names."""
    name, slash, version = text.partition("/")
    number = version_of(version)
    if slash and number is None:
        raise click.BadParameter(f"{text!r}: a version is a number from 1; write {name}/1", param_hint="MODEL")
    return name, number


def open_stores(settings: Settings) -> tuple[S3ModelStore, S3BundleStore]:
    """Return the stores in the bucket that the settings name."""
    from tidegate.aws.bundle_store import S3BundleStore
    from tidegate.aws.clients import AwsClients, AwsConfig
    from tidegate.aws.model_store import S3ModelStore
    from tidegate.aws.objects import Objects

    assert settings.bucket is not None
    objects = Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket)
    return S3ModelStore(objects), S3BundleStore(objects)
