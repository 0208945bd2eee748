"""Proves a rules directory in a child process, so that no request waits for the compiler."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from pathlib import Path

from tidegate.errors import TidegateError
from tidegate.rules.proving import Proof

_CHILD = "from tidegate.rules.proving import main; main()"


async def prove_in_child(rules: Path, at: float, *, only_compile: bool = False) -> Proof:
    """`tidegate.rules.proving.prove` in a child process, which ends where this is cancelled.

    Raises:
        TidegateError: the child ended by itself; the text is what it last said.
    """
    arguments = (str(rules), repr(at), "compile" if only_compile else "prove")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Not the modules of whatever folder this was started in.
        "-P",
        "-c",
        _CHILD,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C in a terminal is for the parent, which then ends the child.
        start_new_session=True,
    )
    try:
        proof, words = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # To its end, or its pipes would outlive the event loop.
        await process.communicate()
        raise
    if process.returncode != 0:
        last = words.decode(errors="replace").strip().splitlines()[-1:]
        raise TidegateError(" ".join(["the rules could not be proved: the process that does so ended", *last]))
    loaded: Proof = pickle.loads(proof)  # noqa: S301  # the child's, which is this program
    return loaded
