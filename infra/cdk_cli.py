"""Runs the pinned CDK command line over a synthesized assembly, on the Node.js of the wheel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra import node_folder
from infra.checks import CheckError

FOLDER = Path(__file__).parent / "cdk"
PROGRAM = FOLDER / "node_modules" / "aws-cdk" / "bin" / "cdk"


def run_cdk(arguments: Sequence[str], assembly: Path | None, region: str) -> int:
    """Run `cdk` with its output on this terminal, and return its exit code.

    Args:
        arguments: the command and its options.
        assembly: the folder of the assembly that it works on, if the command needs one.
        region: the AWS region; the account is that of the credentials.

    Raises:
        CheckError: the command line is not installed.
    """
    if not PROGRAM.exists():
        raise CheckError("the CDK command line is not installed: run it through `make infra`, which installs it")
    app = [] if assembly is None else ["--app", str(assembly)]
    environment = os.environ | {"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "CDK_DISABLE_CLI_TELEMETRY": "true"}
    done = subprocess.run(  # noqa: S603  # our own command
        [str(node_folder() / "node"), str(PROGRAM), *arguments, *app, "--no-notices", "--no-version-reporting"],
        env=environment,
        check=False,
    )
    return done.returncode
