"""`python -m chaos [NAME…]`: run every scenario, or what is named, and write their rows of docs/resilience.md."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos.envoy import ASKING_SCENARIOS, ENVOY_SCENARIOS, running_envoy
from chaos.place import running_place
from chaos.run import BACK_WITHIN_S, Result, run
from chaos.scenarios import SCENARIOS, Scenario

REPORT = Path("docs/resilience.md")
TABLES: Mapping[str, Mapping[str, Scenario[Any]]] = {
    "chaos": SCENARIOS,
    "envoy": ASKING_SCENARIOS | ENVOY_SCENARIOS,
}
"""The scenarios of each table of the report, by its mark."""

ALL: Mapping[str, Scenario[Any]] = {name: each for table in TABLES.values() for name, each in table.items()}
HEAD = """\
| scenario | requests | failed | by the fallback | worst latency | back after | measured |
|---|---|---|---|---|---|---|
"""


def main(names: Sequence[str]) -> int:
    """Run the scenarios on one stack. Return 1 where one failed a request, or took too long to recover."""
    unknown = sorted({*names} - ALL.keys())
    if unknown:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    rows, bad = {}, []
    for name, result in _results([*names] or [*ALL]):
        print(_words(result), file=sys.stderr, flush=True)
        rows[name] = _row(name, result)
        if not result.is_good(ALL[name]):
            bad.append(name)
    _write(rows)
    if bad:
        print(f"requests failed, or were not back within {BACK_WITHIN_S:.0f} s: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def _results(names: Sequence[str]) -> Iterator[tuple[str, Result]]:
    """Run scenarios, those of Envoy last. Yield each as it ends."""
    with tempfile.TemporaryDirectory() as folder, running_place(Path(folder)) as place:
        for name in names:
            if name in SCENARIOS:
                print(f"{name} …", end=" ", file=sys.stderr, flush=True)
                yield name, run(place, SCENARIOS[name])
        for scenarios, options in ((ASKING_SCENARIOS, ["--no-in-process"]), (ENVOY_SCENARIOS, [])):
            wanted = [name for name in names if name in scenarios]
            if not wanted:
                continue
            with running_envoy(place, *options) as beside:
                for name in wanted:
                    print(f"{name} …", end=" ", file=sys.stderr, flush=True)
                    yield name, run(beside, scenarios[name])


def _words(result: Result) -> str:
    failed = ", ".join(f"{count} × {outcome}" for outcome, count in result.failed.items()) or "none failed"
    return (
        f"{result.requests} requests, {failed}, {result.by_fallback} by the fallback, "
        f"worst {result.worst_ms:.0f} ms, back after {result.back_after_s:.1f} s"
    )


def _row(name: str, result: Result) -> str:
    return (
        f"| {ALL[name].text} (`{name}`) | {result.requests:,} | {result.failed.total()} | {result.by_fallback:,} | "
        f"{result.worst_ms:.0f} ms | {result.back_after_s:.1f} s | {datetime.now(UTC):%Y-%m-%d} |\n"
    )


def _write(rows: dict[str, str]) -> None:
    """Put rows in place of the report's own of the same scenarios."""
    text = REPORT.read_text(encoding="utf-8")
    known = {found[1]: f"{found[0]}\n" for found in re.finditer(r"^\|.*\(`([a-z-]+)`\).*\|$", text, re.MULTILINE)}
    known |= rows
    for mark, scenarios in TABLES.items():
        table = HEAD + "".join(known[name] for name in scenarios if name in known) + "\n"
        place = rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end -->)"
        text = re.sub(place, table, text, flags=re.DOTALL)  # No text of a scenario has a backslash.
    REPORT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
