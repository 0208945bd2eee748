"""Answers of Triton, as tests of shadows need them."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
from tidegate.oip.arrays import NUMPY_TYPES, _to_bytes
from tidegate.shadows.exchange import Answer, Exchange, Pair

PAIR = Pair("ranking", "default", "ranking@champion", "ranking/1", "ranking", "ranking/2")
CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress}


def answer(outputs, *, in_json=(), coding=None, latency_ms=2.0):
    """Return an answer with outputs, (datatype, array) by name; those of `in_json` are in its JSON, not in binary."""
    described, blobs = [], []
    for name, (datatype, array) in outputs.items():
        tensor = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if name in in_json:
            flat = array.ravel().tolist()
            tensor["data"] = [each.decode() for each in flat] if datatype == "BYTES" else flat
        else:
            blobs.append(_to_bytes(array.ravel(), datatype))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        described.append(tensor)
    head = json.dumps({"model_name": "m", "model_version": "1", "outputs": described}).encode()
    body = b"".join((head, *blobs))
    headers = [(b"inference-header-content-length", str(len(head)).encode())] if blobs else []
    if coding is not None:
        headers.append((b"content-encoding", coding.encode()))
        body = CODINGS[coding](body)
    return Answer(200, headers, body, latency_ms)


def tensor(datatype, values):
    return datatype, np.array(values, NUMPY_TYPES[datatype])


def exchange(primary, shadow, ranking=None, pair=PAIR, at=1000.0):
    return Exchange(pair, "5f2c", at, primary, shadow, ranking)
