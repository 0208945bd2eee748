"""How long comparing two answers takes, in processor time of one core: `python -m bench.compare_answers`.

Prints the table of docs/shadows.md; the last column is numpy's time for the same numbers, without decoding the answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tidegate.oip.framing import join_bytes
from tidegate.rules.contract import Ranking
from tidegate.shadows.exchange import Answer, Exchange, Pair
from tidegate.shadows.tallies import Tallies

ROUNDS = 9
MEGABYTE = 1024 * 1024
PAIR = Pair("objective", "rule", "primary", "primary/1", "shadow", "shadow/1")

Outputs = Mapping[str, tuple[str, npt.NDArray[Any]]]


def main() -> None:
    draw = np.random.default_rng(6)
    single = draw.random(MEGABYTE // 4, np.float32)
    half = draw.random(MEGABYTE // 2).astype(np.float16)
    whole = draw.integers(0, 9, MEGABYTE // 8)
    texts = np.full(MEGABYTE // 16, b"twelve bytes", np.object_)
    ranked = {"IDS": ("INT64", np.arange(20)[None]), "SCORES": ("FP32", draw.random((1, 20), np.float32))}
    other = {"IDS": ("INT64", np.arange(1, 21)[None]), "SCORES": ("FP32", draw.random((1, 20), np.float32))}
    print("| answers | each, KB | comparing, ms | numpy, ms |\n|---|---:|---:|---:|")
    _row("20 ids with scores, as a ranking", _binary(ranked), _binary(other), None)
    _row("FP32, identical", _binary(_only("FP32", single)), _binary(_only("FP32", single)), (single, single))
    _row(
        "FP32, all different", _binary(_only("FP32", single)), _binary(_only("FP32", single * 2)), (single, single * 2)
    )
    _row("FP16, all different", _binary(_only("FP16", half)), _binary(_only("FP16", half + 1)), (half, half + 1))
    _row("INT64, all different", _binary(_only("INT64", whole)), _binary(_only("INT64", whole + 1)), (whole, whole + 1))
    _row("BYTES, all equal", _binary(_only("BYTES", texts)), _binary(_only("BYTES", texts)), None)
    numbers = single[: MEGABYTE // 20]
    _row("FP32 in JSON, all different", _json(numbers), _json(numbers * 2), None)


def _only(datatype: str, array: npt.NDArray[Any]) -> Outputs:
    return {"y": (datatype, array)}


def _row(name: str, primary: Answer, shadow: Answer, arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None) -> None:
    exchange = Exchange(PAIR, "revision", 0.0, primary, shadow, Ranking("IDS", 10))
    tallies = Tallies()
    took = _least_ms(lambda: tallies.add(exchange))
    with_numpy = "" if arrays is None else f"{_least_ms(lambda: _errors(*arrays)):.1f}"
    print(f"| {name} | {len(primary.body) / 1024:,.0f} | {took:.2f} | {with_numpy} |")


def _errors(primary: npt.NDArray[Any], shadow: npt.NDArray[Any]) -> tuple[float, float, int]:
    ours, theirs = primary.astype(np.float64), shadow.astype(np.float64)
    errors = np.abs(ours - theirs)
    scale = np.maximum(np.abs(ours), np.abs(theirs))
    relative = np.divide(errors, scale, out=np.zeros_like(errors), where=scale > 0)
    return float(errors.max()), float(relative.max()), int((ours == theirs).sum())


def _least_ms(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return 1000 * min(took)


def _binary(outputs: Outputs) -> Answer:
    blobs = {name: _bytes(array) for name, (_, array) in outputs.items()}
    described = [
        {
            "name": name,
            "datatype": datatype,
            "shape": array.shape,
            "parameters": {"binary_data_size": len(blobs[name])},
        }
        for name, (datatype, array) in outputs.items()
    ]
    head = json.dumps({"outputs": described}).encode()
    headers = [(b"inference-header-content-length", str(len(head)).encode())]
    return Answer(200, headers, b"".join((head, *blobs.values())), 1.0)


def _bytes(array: npt.NDArray[Any]) -> bytes:
    return join_bytes(array.tolist()) if array.dtype == np.object_ else array.tobytes()


def _json(array: npt.NDArray[np.float32]) -> Answer:
    output = {"name": "y", "datatype": "FP32", "shape": array.shape, "data": array.tolist()}
    return Answer(200, [], json.dumps({"outputs": [output]}).encode(), 1.0)


if __name__ == "__main__":
    main()
