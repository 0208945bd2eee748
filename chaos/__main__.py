"""`python -m chaos [NAME…]`: run every scenario, or what is named, and write their rows of docs/resilience.md."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chaos.place import running_place
from chaos.run import BACK_WITHIN_S, Result, run
from chaos.scenarios import SCENARIOS

REPORT = Path("docs/resilience.md")
TABLE = re.compile(r"(?<=<!-- chaos -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEAD = """\
| scenario | requests | failed | by the fallback | worst latency | back after | measured |
|---|---|---|---|---|---|---|
"""


def main(names: Sequence[str]) -> int:
    """Run the scenarios on one stack. Return 1 where one failed a request, or took too long to recover."""
    unknown = sorted({*names} - SCENARIOS.keys())
    if unknown:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    rows, bad = {}, []
    with tempfile.TemporaryDirectory() as folder, running_place(Path(folder)) as place:
        for name in names or SCENARIOS:
            print(f"{name} …", end=" ", file=sys.stderr, flush=True)
            result = run(place, SCENARIOS[name])
            print(_words(result), file=sys.stderr, flush=True)
            rows[name] = _row(name, result)
            if not result.is_good:
                bad.append(name)
    _write(rows)
    if bad:
        print(f"requests failed, or were not back within {BACK_WITHIN_S:.0f} s: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def _words(result: Result) -> str:
    failed = ", ".join(f"{count} × {outcome}" for outcome, count in result.failed.items()) or "none failed"
    return (
        f"{result.requests} requests, {failed}, {result.by_fallback} by the fallback, "
        f"worst {result.worst_ms:.0f} ms, back after {result.back_after_s:.1f} s"
    )


def _row(name: str, result: Result) -> str:
    return (
        f"| {SCENARIOS[name].text} (`{name}`) | {result.requests:,} | {result.failed.total()} | {result.by_fallback:,} | "
        f"{result.worst_ms:.0f} ms | {result.back_after_s:.1f} s | {datetime.now(UTC):%Y-%m-%d} |\n"
    )


def _write(rows: dict[str, str]) -> None:
    """Put rows in place of the report's own of the same scenarios."""
    text = REPORT.read_text(encoding="utf-8")
    known = {found[1]: f"{found[0]}\n" for found in re.finditer(r"^\|.*\(`([a-z-]+)`\).*\|$", text, re.MULTILINE)}
    table = HEAD + "".join((known | rows)[name] for name in SCENARIOS if name in known | rows)
    REPORT.write_text(TABLE.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
