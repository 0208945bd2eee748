"""Says whether Envoy can decide in its own process here, and with what."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tidegate.bootstrap.compiled import compiled_folder, find_filter
from tidegate.bootstrap.resolvers import without_secrets
from tidegate.envoy.in_process import VERSION, InProcessOptions
from tidegate.errors import SettingsError
from tidegate.settings import Settings

REPORTS = "inner.sock"
_VERSION_S = 10
_VERSION = re.compile(r"/(\d+)\.(\d+)\.\d+[^/]*/")
"""In what `envoy --version` prints: the commit, the version, and how it was built."""


def in_process_options(settings: Settings, folder: Path, program: Path) -> InProcessOptions:
    """Return what the filter in Envoy needs.

    Args:
        settings: those of the command.
        folder: its state.
        program: Envoy.

    Raises:
        SettingsError: Envoy cannot decide in its own process; the message says why.
    """
    library = find_filter()
    if library is None:
        raise SettingsError(
            "Envoy's filter is not built: `make compiled` builds it, with a C compiler and a shared library of Python"
        )
    if settings.tracing != "off":
        raise SettingsError("spans are recorded by resolvers alone")
    version = _version_of(program)
    if version != VERSION:
        shown = "another version" if version is None else ".".join(map(str, version))
        raise SettingsError(f"{program} is {shown} of Envoy, and the filter is for {'.'.join(map(str, VERSION))}")
    return InProcessOptions(
        library=library,
        python=sys.executable,
        imports=compiled_folder(),
        folder=folder,
        reports=folder / REPORTS,
        # Requests are logged once, by what carries them.
        settings=replace(without_secrets(settings), access_log=None).to_environment(),
    )


def _version_of(program: Path) -> tuple[int, int] | None:
    try:
        shown = subprocess.run(  # noqa: S603  # the program that is to be run
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    found = _VERSION.search(shown.stdout)
    return (int(found[1]), int(found[2])) if found else None
