"""`tidegate` in the process that tests it: what a command does, without the second that its own process takes to start."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping

from click.testing import CliRunner
from tidegate.cli import main

from tests.support.stack import NOTHING, ROOT


def tidegate(*arguments: str, variables: Mapping[str, str] = NOTHING) -> subprocess.CompletedProcess[str]:
    """What a command says, run in the project's folder with no settings but `variables`; an exception that escapes it fails
    the test."""
    own = {name: None for name in os.environ if name.startswith("TIDEGATE_")}
    with contextlib.chdir(ROOT):
        done = CliRunner().invoke(main, arguments, env=own | variables, prog_name="tidegate")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
