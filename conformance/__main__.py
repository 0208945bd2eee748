"""`python -m conformance`: write the corpus again, from the rules in conformance/rules and the engine."""

from __future__ import annotations

import sys
from pathlib import Path

from conformance.corpus import CORPUS, corpus


def main(folder: Path) -> None:
    """Write every file of the corpus to `folder`: the same bytes for the same rules, on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in corpus().items():
        (folder / name).write_bytes(data)
        print(f"{folder / name}: {len(data):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS)
