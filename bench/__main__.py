"""`python -m bench`: measure everything and write docs/performance.md."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench import analyse, cold_start, decide, functions, gateway, placement

REPORT = Path("docs/performance.md")


def main() -> int:
    """Run every benchmark and write the report."""
    sections = []
    for module in (decide, analyse, gateway, cold_start, functions, placement):
        print(f"{module.__name__} …", file=sys.stderr, flush=True)
        sections.append(module.run())
    head = [
        "# Performance",
        "",
        "Written by `make bench`; run it to repeat every figure. Ratios hold better across machines than times do.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}, {os.cpu_count()} cores, no GPU.",
        "",
    ]
    REPORT.write_text("\n".join([*head, *sections]), encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
