"""`python -m training --out triton_models`: build every artefact, or say that all are up to date; `--clean` removes them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.artefacts import changed_artefacts, remove_built, remove_outdated, stale_because, write_stamp
from training.wheels import WheelError

ROOT = Path(__file__).parents[1]
METRICS = Path(__file__).with_name("metrics.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the process's exit status."""
    options = _parser().parse_args(arguments)
    if options.clean:
        for path in remove_built(options.out):
            print(f"kept {options.out / path}: it is not what was built")
        return 0
    for path in () if options.force else changed_artefacts(options.out):
        print(f"kept {options.out / path}: it is not what was built; delete it, or --force, to have it built again")
    reason = "--force asks for it" if options.force else stale_because(options.out)
    if reason is None:
        print(f"artefacts in {options.out} are up to date")
        return 0
    print(f"building artefacts into {options.out}: {reason}", flush=True)
    # Imported here, because they take a second that a build which is up to date need not pay.
    from training.building import build
    from training.measures import differences

    started = time.perf_counter()
    try:
        artefacts, metrics = build(options.wheels, options.out, forced=options.force)
    except WheelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.accept_metrics:
        METRICS.write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")
    unexpected = differences(metrics, json.loads(METRICS.read_text("utf-8")))
    if unexpected:
        print(
            "error: offline metrics are not those of training/metrics.json:", *unexpected, sep="\n  ", file=sys.stderr
        )
        print("If the change is meant, run again with --accept-metrics and commit the file.", file=sys.stderr)
        return 1
    remove_outdated(artefacts)
    write_stamp(artefacts, metrics)
    print(f"built {len(artefacts.digests)} artefacts in {time.perf_counter() - started:.0f} s; metrics as recorded")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Build the example models' artefacts.")
    parser.add_argument("--out", type=Path, default=ROOT / "triton_models", help="the Triton model repository")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "wheels", help="where downloads are kept")
    parser.add_argument(
        "--force", action="store_true", help="build even if everything is up to date, over what was changed"
    )
    parser.add_argument("--clean", action="store_true", help="remove what was built and not changed since")
    parser.add_argument(
        "--accept-metrics", action="store_true", help="record the metrics measured as the expected ones"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
