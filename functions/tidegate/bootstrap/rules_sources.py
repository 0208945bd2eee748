"""Rules that a person publishes: a directory, or a bundle that was checked elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.analysis.proof_outcome import CaseTally, Task, decode_outcome
from tidegate.control.following import FollowMode
from tidegate.errors import RulesError, TidegateError
from tidegate.placement import FleetDemand
from tidegate.ports.sources import CheckedRules


@dataclass(frozen=True, slots=True)
class GivenRules:
    """A `RulesSource` of a bundle that was checked elsewhere."""

    bundle: bytes
    demand: FleetDemand = FleetDemand()  # noqa: RUF009  # immutable

    async def check(self) -> CheckedRules:
        return CheckedRules(self.bundle, self.demand, "checked before")

    async def test(self, checked: CheckedRules) -> str:  # noqa: ARG002  # the protocol's
        return "tested before"


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """A `RulesSource` of a directory that is compiled and not analysed: for someone who writes rules and watches them."""

    path: Path

    async def check(self) -> CheckedRules:
        checked, _ = await _check(self.path, Task.COMPILE)
        return checked

    async def test(self, checked: CheckedRules) -> str:  # noqa: ARG002  # the protocol's
        return "left out: the rules are only compiled"


@dataclass(slots=True)
class ProvedRules:
    """A `RulesSource` of a directory that is compiled, analysed and tested: what goes live where others depend on it."""

    path: Path
    _tested: dict[bytes, CaseTally] = field(default_factory=dict, init=False)

    async def check(self) -> CheckedRules:
        """Compile and analyse them in a child process; warnings are the notes."""
        checked, cases = await _check(self.path, Task.PROVE)
        self._tested = {checked.bundle: cases}
        return checked

    async def test(self, checked: CheckedRules) -> str:
        """Return the summary of the cases, which ran with the last check. Raises `RulesError`: a case fails, or has errors."""
        tally = self._tested[checked.bundle]
        if tally.failures:
            raise RulesError(list(tally.failures))
        return tally.summary()


async def _check(rules: Path, task: Task) -> tuple[CheckedRules, CaseTally]:
    """Run `tidegate.analysis.proving` in a child process, so that no request waits for the compiler; it is killed if this is
    cancelled.

    Raises:
        RulesError: the rules have errors.
        TidegateError: the child ended by itself; the message has the last line of its standard error.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Not the modules of whatever folder this was started in.
        "-P",
        "-c",
        "from tidegate.analysis.proving import main; main()",
        task,
        str(rules),
        repr(time.time()),
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
    found = decode_outcome(proof)
    if found.bundle is None or found.summary is None:
        raise RulesError(list(found.errors))
    return CheckedRules(found.bundle, found.demand, found.summary, tuple(map(str, found.warnings))), found.cases


def followed_rules(path: Path, mode: FollowMode) -> CompiledRules | ProvedRules:
    return CompiledRules(path) if mode is FollowMode.UNCHECKED else ProvedRules(path)
