"""What is live, as an argument that takes rules: `live:`, and `live:~1` for what was live before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane

PREFIX = "live:"
_NAME = re.compile(r"live:(?:~(?P<back>[0-9]{1,2}))?")


def is_live(name: str) -> bool:
    """Whether an argument names what is live."""
    return name.startswith(PREFIX)


def check_stack(stack: str | None, *names: str | None) -> None:
    """Refuse `--stack` where no argument names what is live, as it would mean nothing.

    Raises:
        click.UsageError: it was given, and none does.
    """
    if stack is not None and not any(name is not None and is_live(name) for name in names):
        raise click.UsageError("--stack says where to find `live:`, and no argument names that: leave it out")


def read_live(name: str, stack: str | None) -> bytes:
    """The resolved bundle that is live in the stores of a stack, or was so many flips ago.

    Args:
        name: `live:` or `live:~N`.
        stack: the address that `--stack` gives, if any.

    Raises:
        click.UsageError: the name is malformed, nothing names a stack or stores, or there was no such flip.
        TidegateError: the stores cannot be read, or the bundle is damaged.
    """
    from tidegate.cli.control import StoreOptions, resolve_settings
    from tidegate.cli.working import run_on_plane

    match = _NAME.fullmatch(name)
    if match is None:
        raise click.UsageError(f"{name!r} is neither `live:` nor, for what was live N flips ago, `live:~N`")
    back = int(match["back"] or 0)

    async def work(plane: ControlPlane) -> bytes:
        pointer = await plane.reader.pointer()
        if pointer is None:
            raise click.UsageError("nothing is live: nothing was ever published there; `tidegate publish` does")
        if back >= len(pointer.entries):
            raise click.UsageError(f"{name} is before the first of {len(pointer.entries)} flips that are known")
        return await plane.ports.bundles.bundle(pointer.entries[back].revision)

    return run_on_plane(resolve_settings(StoreOptions(stack=stack)), work)
