"""What the models commands share: arguments, and how findings are printed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.errors import ModelConfigError
from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks import Judged, Repository
from tidegate.triton.checks.accepted import FILE
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.images.manifest import find_image
from tidegate.triton.model_config import CONFIG

MODELS = click.argument("models", nargs=-1, metavar="[MODEL]...")
IN_MODELS = click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("triton_models"),
    show_default=True,
    help="The Triton model repository.",
)
IMAGES = click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME_OR_MANIFEST",
    help="What will serve the models: one of NVIDIA's images, a manifest, or `local` for this machine's Triton.",
)


def open_repository(directory: Path, models: Iterable[str] = (), images: Iterable[str] = ()) -> Repository:
    """The repository in a directory; a directory that is none, or that lacks one of `models`, is wrong usage.

    `images` name what will serve its models: see `find_image`.
    """
    try:
        repository = Repository(directory, image=tuple(map(find_image, images)))
    except ModelConfigError as error:
        raise click.BadParameter(str(error), param_hint="--image") from error
    try:
        names = repository.names()
    except OSError as error:
        raise click.BadParameter(f"{directory} cannot be read: {error.strerror}", param_hint="DIRECTORY") from error
    if (directory / CONFIG).is_file():
        hint = f"give the repository around it: {directory.resolve().parent}"
        raise click.BadParameter(f"{directory} is a model, not a model repository; {hint}", param_hint="DIRECTORY")
    if not any(_holds_model(directory / name) for name in names):
        hint = "a model repository has one folder for each model"
        raise click.BadParameter(f"{directory} holds no model; {hint}", param_hint="DIRECTORY")
    for name in models:
        if name not in names:
            hint = did_you_mean(name, set(names), "model")
            raise click.BadParameter(f"unknown model {name!r}: {hint}", param_hint="MODEL")
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
        if finding.severity == "warning":
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


def accepted_json(judged: Judged) -> list[dict[str, object]]:
    """The accepted warnings as plain JSON values, each with the reason."""
    return [{**finding.as_dict(), "reason": reason} for finding, reason in judged.accepted]


def count(number: int, noun: str) -> str:
    """A number of things in words, such as `1 model`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
