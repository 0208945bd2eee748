"""`python -m simulation [NAME…]`: simulate everything, or what is named, and write its sections of docs/scale.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from simulation import fleet, followers
from simulation.writing import write_sections

SIMULATIONS = {"followers": followers.run, "fleet": fleet.run}


def main(names: Sequence[str]) -> int:
    unknown = sorted({*names} - SIMULATIONS.keys())
    if unknown:
        print(f"no simulation {', '.join(unknown)}; there are {', '.join(SIMULATIONS)}", file=sys.stderr)
        return 2
    for name in names or SIMULATIONS:
        print(f"{name} …", file=sys.stderr, flush=True)
        section = SIMULATIONS[name]()
        write_sections({name: section})
        print(section)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
