"""One build: every artefact, and the offline metrics measured on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from training import movielens, purchase, title_playlist, title_ranking, title_search
from training.artefacts import Artefacts
from training.wheels import fetch


def build(wheels_folder: Path, out: Path, *, forced: bool = False) -> tuple[Artefacts, dict[str, Any]]:
    """Build everything on one thread, so that the same machine writes the same bytes however many cores it has.

    `forced` builds over what somebody else has put in an artefact's place.

    Raises:
        WheelError: a wheel could not be had, or is not the one that is locked.
    """
    wheels = fetch(wheels_folder)
    artefacts = Artefacts(out, forced=forced)
    data = movielens.load(wheels)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "title_ranking": lambda: title_ranking.build(data, artefacts),
        "title_playlist": lambda: title_playlist.build(data, artefacts),
        "title_search": lambda: title_search.build(data, wheels, artefacts),
        "purchase_propensity": lambda: purchase.build(wheels, artefacts),
    }
    metrics = {}
    with threadpool_limits(limits=1):
        for name, part in parts.items():
            print(f"{name}:", flush=True)
            started = time.perf_counter()
            metrics[name] = part()
            print(f"  {time.perf_counter() - started:.1f} s", flush=True)
    return artefacts, metrics
