"""`tidegate` in the process that tests it: what a command does, without the second that its own process takes to start."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner
from tidegate.cli import main

from tests.support.stack import LATE, NOTHING, PATIENT, ROOT, eventually


def tidegate(
    *arguments: str, variables: Mapping[str, str] = NOTHING, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """What a command says, run in `folder` with no settings but `PATIENT` and `variables`; an exception that escapes it fails
    the test. `status` is asked again where a stack is too busy to look at its fleet in time."""
    if "status" not in arguments[:1]:
        return _run(arguments, variables, folder)
    done = _run(arguments, variables, folder)

    def is_current() -> bool:
        nonlocal done
        if not LATE.search(" ".join(done.stdout.split())):
            return True
        done = _run(arguments, variables, folder)
        return False

    eventually(is_current)
    return done


def _run(arguments: tuple[str, ...], variables: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    own = {name: None for name in os.environ if name.startswith("TIDEGATE_")}
    with contextlib.chdir(folder):
        done = CliRunner().invoke(main, arguments, env={**own, **PATIENT, **variables}, prog_name="tidegate")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def typed(
    command: str, variables: Mapping[str, str] = NOTHING, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """What a command line says: in this process where it is `tidegate` alone, and by a shell where it is more."""
    if command.startswith("tidegate ") and not set(command) & set("|&;<>$`"):
        return tidegate(*shlex.split(command)[1:], variables=variables, folder=folder)
    others = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**others, **PATIENT, **path, **variables},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
