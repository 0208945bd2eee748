"""Runs a reader on what the fuzzer made: every end but a refusal that says where, or an answer, fails the test."""

from __future__ import annotations

import contextlib
import random as randomness
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings
from tidegate.cli import main
from tidegate.errors import NoRuleError
from tidegate.rules import Engine, load_bundle
from tidegate.rules.contract import Attribute

from tests.docs.blocks import ROOT
from tests.support.effort import is_full

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
HANG_S = 60
"""Far above what the slowest document takes on a busy machine."""

FUZZED = settings(
    deadline=None,
    max_examples=1000 if is_full() else 25,
    suppress_health_check=list(HealthCheck),
)
"""Each example runs whole commands, so a run that is not full tries few."""

SECTION = b"\n=== "
FAR_PAST, FAR_FUTURE = -62_135_596_800, 253_402_300_799


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """Fail what takes longer than `HANG_S`."""

    def fail(*_: object) -> None:
        raise AssertionError(f"a reader took longer than {HANG_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*arguments: object) -> Result:
    """The outcome of `tidegate …`; an exception that is not the end of a command fails the test."""
    with no_hang():
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code in (0, 1, 2), result.output
    return result


def check_rules(root: Path, scratch: Path) -> bool:
    """Let every command read a rules directory; whether it compiles. What compiles must load and decide."""
    checked = command("rules", "check", root)
    refused = "author-error" in checked.output
    bundle = scratch / "bundle"
    bundle.unlink(missing_ok=True)
    compiled = command("rules", "compile", root, "-o", bundle)
    assert (compiled.exit_code != 0) == refused, compiled.output
    tested = command("rules", "test", root)
    if refused:
        for line in checked.output.splitlines()[:-1]:
            assert "error[author-error]" in line, line
        assert tested.exit_code == 1
        return False
    command("rules", "graph", root)
    command("rules", "diff", root, bundle)
    decide_all(load_bundle(bundle.read_bytes()))
    return True


def decide_all(engine: Engine) -> None:
    """Decide contexts of every objective's own schema: each gets a decision, or no rule matches it."""
    random = randomness.Random(0)
    for name, objective in engine.objectives.items():
        engine.representative(name)
        for _ in range(12):
            context: dict[str, Any] = {
                attribute.name: _value(attribute, random)
                for attribute in objective.attributes.values()
                if attribute.required or random.random() < 0.6
            }
            context["allocations"] = {each: random.choice(["control", 1, "x"]) for each in objective.allocations}
            for at in (FAR_PAST, 0, 1.8e9, FAR_FUTURE, None):
                with contextlib.suppress(NoRuleError):
                    decision = engine.decide(name, context, at=at)
                    assert decision.target.shards
            engine.explain(name, context, at=1.8e9).as_dict()


def _value(attribute: Attribute, random: randomness.Random) -> Any:
    if attribute.type == "set":
        return random.sample(list(attribute.values or ["rows", "hero", "hdr"]), k=random.randrange(2))
    if attribute.values:
        return random.choice(attribute.values)
    pools: dict[str, list[Any]] = {
        "string": ["", "1", "US", "SE", "test-7", "é" * 300],
        "integer": [0, 1, 18, -(10**30), 2**1100],
        "number": [0, 0.5, 1, -1e308, 5e-324, 2**1000],
        "boolean": [True, False],
        "version": ["0", "8.2", "9.0-beta.1", "10.0.0.1+x"],
    }
    return random.choice(pools[attribute.type])


def sections(data: bytes) -> dict[str, bytes]:
    """The files of an entry of the corpus: a line `=== path` before the content of each."""
    files: dict[str, bytes] = {}
    for part in (b"\n" + data).split(SECTION)[1:]:
        path, _, content = part.partition(b"\n")
        files[path.strip().decode()] = content
    return files


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a new folder."""
    root.mkdir()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root
