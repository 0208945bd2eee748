"""`python -m bench [NAME…]`: measure everything, or what is named, and write docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    admission,
    analyse,
    client,
    cold_start,
    compare,
    decide,
    endurance,
    functions,
    gateway,
    hedging,
    isolation,
    placement,
    replay,
    resolver,
    rpc,
    scale,
    shadows,
    telemetry,
    tracing,
)
from bench.figures import write_figures

REPORT = Path("docs/performance.md")
BENCHMARKS = {
    module.__name__.removeprefix("bench."): module
    for module in (
        decide,
        client,
        gateway,
        resolver,
        scale,
        rpc,
        hedging,
        shadows,
        telemetry,
        tracing,
        isolation,
        admission,
        endurance,
        cold_start,
        functions,
        analyse,
        compare,
        replay,
        placement,
    )
}
HEAD = """\
# Performance

Written by `make bench`; run it to repeat every figure. Ratios hold better across machines than times do.

How Python was built counts. With Debian's, which was optimized by a profile, the gateway takes a fifth less time than with one that pyenv builds
by default: on one machine and at one commit, it added 0.26 and 0.33 ms to a direct call of 1 kB. In a fresh clone,
`make env PYTHON=/usr/bin/python3` chooses the distribution's. A section that does not say which Python it had was measured with pyenv's.
"""


def main(names: Sequence[str]) -> int:
    """Run benchmarks, all where none is named, and put their sections in place of the report's own; the others stay."""
    unknown = sorted({*names} - BENCHMARKS.keys())
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        _write(name, BENCHMARKS[name].run())
    write_figures(REPORT)
    print(REPORT.read_text(encoding="utf-8"))
    return 0


def _write(name: str, section: str) -> None:
    found = re.split(
        r"^<!-- (\w+) -->\n", REPORT.read_text(encoding="utf-8") if REPORT.exists() else "", flags=re.MULTILINE
    )
    sections = dict(zip(found[1::2], found[2::2], strict=True))
    where = f"*{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}{_build()}, {os.cpu_count()} cores, no GPU.*"
    sections[name] = f"{section.strip()}\n\n{where}\n"
    parts = [f"<!-- {each} -->\n{sections[each].strip()}\n" for each in BENCHMARKS if each in sections]
    REPORT.write_text("\n".join([HEAD, *parts]), encoding="utf-8")


def _build() -> str:
    """Say how Python was built, as far as it counts: distributions optimize it by a profile, and leave that out of its configuration."""
    if sys.base_prefix == "/usr":
        return " of the distribution"
    is_optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return "" if is_optimized else " without --enable-optimizations"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
