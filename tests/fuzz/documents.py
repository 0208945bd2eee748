"""Sound documents that use every key of their language: what the fuzzer changes."""

from __future__ import annotations

from typing import Any

FLEET: dict[str, Any] = {
    "shards": {
        "cpu": {"replicas": 2, "memory_mb": 4000, "traffic_per_s": 800, "spot_percent": 12.5, "scale_to_zero": True},
        "gpu": {"replicas": 1, "memory_mb": 2000, "instance_type": "g6.xlarge", "min_replicas": 0, "max_replicas": 3},
    },
    "models": {
        "base": {"shards": ["cpu", "gpu"]},
        "better": {"shards": "auto", "replicas": 2, "memory_mb": 300, "traffic_per_s": 0.5, "tenant": "acme"},
        "best": {"shards": ["gpu"], "memory_mb": 100},
    },
    "steps": {"features": {"memory_mb": 120}},
    "tenants": {"acme": {"apart_from": ["globex"]}, "globex": {"apart_from": "*"}, "initech": {}},
    "aliases": {"base@champion": "base/1", "base@next": "better"},
}

LAYERS: dict[str, Any] = {
    "home": {
        "key": ["member_id", "account"],
        "holdout": [0, 499],
        "experiments": {"12345": [500, 2499], 12401: [[2500, 3999], [6000, 6499]]},
    },
    "search": {"key": "member_id", "experiments": {"s-1": [0, 9999]}},
}

CALLERS: dict[str, Any] = {
    "callers": {
        "web": {"objectives": ["ranking"], "rate_per_s": 100, "concurrency": 10, "overrides": ["base/1", "best"]},
        "ops": {"objectives": "*", "overrides": "*", "traffic": "synthetic", "rate_per_s": 0.5},
    }
}

RANKING: dict[str, Any] = {
    "objective": "ranking",
    "summary": "Rank titles.",
    "owner": "personalization",
    "context": {
        "member_id": {"type": "string"},
        "account": {"type": "integer"},
        "country": {"type": "string", "from": "header:CloudFront-Viewer-Country"},
        "device": {"type": "string", "values": ["tv", "mobile", "web"], "default": "web"},
        "app_version": {"type": "version", "values": ["8.2", "9.0-beta.1", "10"]},
        "build": {"type": "version"},
        "age": {"type": "integer", "default": 18},
        "level": {"type": "integer", "values": [1, 2, 3]},
        "score": {"type": "number", "default": 0.5},
        "ratio": {"type": "number", "values": [0.5, 1, 2.5]},
        "is_kids": {"type": "boolean", "required": True},
        "features": {"type": "set", "default": ["rows"]},
        "tags": {"type": "set", "values": ["a", "b"]},
    },
    "sticky_key": ["member_id", "account"],
    "timeout_ms": 80,
    "fallback": ["base", "best"],
    "rules": [
        {
            "id": "conditions",
            "when": {
                "country": ["US", "CA"],
                "device": {"not": "web"},
                "build": {"gte": "8.2", "lt": "9"},
                "age": {"gte": 18, "lt": 65, "not": [20, 30]},
                "score": {"gt": 0.25, "lte": 1},
                "member_id": {"prefix": ["test-", "staff-"], "suffix": "7"},
                "features": {"contains_any": ["rows", "hero"], "contains_all": ["hdr"]},
            },
            "serve": "best",
        },
        {
            "id": "alternatives",
            "when": {
                "is_kids": False,
                "any_of": [{"country": "SE"}, {"level": {"in": [1, 2]}, "any_of": [{"ratio": 0.5}, {"tags": {"present": True}}]}],
            },
            "active": {"from": "2026-01-01T00:00:00Z", "until": "9998-01-01"},
            "split": {"base@champion": 90, "better": 10, "best/1": 0},
            "shadow": {"best": 12.5, "better": 100},
            "parameters": {"top_k": 20, "strict": True, "ratio": 0.5, "name": "x"},
            "timeout_ms": 120,
            "hedge_after_ms": 40,
            "fault": {"delay_ms": 20, "abort_status": 503, "percent": 12.5},
        },
        {"id": "home", "experiment": {"id": "12345", "layer": "home", "cells": {1: {"serve": "base", "weight": 2}, 2: "better"}}},
        {"id": "search", "experiment": {"id": "s-1", "layer": "search", "cells": {"a": "base", "b": "best"}}},
        {
            "id": "elsewhere",
            "experiment": {
                "id": 77,
                "allocate": "caller",
                "cells": {"control": "base", "treatment": {"serve": "best", "parameters": {"top_k": 30}}},
            },
        },
        {"id": "absent", "when": {"member_id": {"present": False}}, "serve": "base", "fallback": []},
        {"id": "default", "serve": "base@champion", "fallback": "better"},
    ],
}  # fmt: skip

CASES: dict[str, Any] = {
    "objective": "ranking",
    "cases": [
        {
            "name": "everything",
            "context": {"member_id": "1", "is_kids": True, "age": 20, "features": ["rows"], "score": 0.5},
            "at": "2026-11-01T00:00:00Z",
            "allocations": {"77": "control"},
            "expect": {
                "rule": "elsewhere",
                "model": "base",
                "version": None,
                "target": "base",
                "variant": "control",
                "experiment": 77,
                "cell": "control",
                "reason": "experiment",
                "parameters": {},
                "fallbacks": ["base", "best"],
                "shadows": {},
                "timeout_ms": 80,
                "hedge_after_ms": None,
                "hedge_at": None,
                "shards": ["cpu", "gpu"],
            },
        },
        {"name": "refused", "context": {"is_kids": 1}, "expect": {"error": "is_kids"}},
        {"name": "none", "context": {"is_kids": None}, "expect": {"rule": None}},
    ],
}

RULES: dict[str, Any] = {
    "fleet.yaml": FLEET,
    "layers.yaml": LAYERS,
    "callers.yaml": CALLERS,
    "objectives/ranking.yaml": RANKING,
    "cases/ranking.yaml": CASES,
}

RECORD: dict[str, Any] = {
    "objective": "ranking",
    "context": {"member_id": "1", "is_kids": True, "age": 20, "features": ["rows"], "allocations": {"77": "control"}},
    "at": "2026-11-01T00:00:00Z",
}

CONFIG = """\
name: "scorer"
backend: "python"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "S" data_type: TYPE_STRING dims: [ -1 ] optional: true } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } } ]
version_policy: { specific: { versions: [ 1 ] } }
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
parameters: { key: "FACTS" value: { string_value: "titles" } }
model_warmup [ { name: "w" batch_size: 1 inputs: { key: "X" value: { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } } } ]
"""

ENSEMBLE = """\
name: "scorer"
platform: "ensemble"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling { step [ {
  model_name: "step" model_version: 1
  input_map { key: "X" value: "X" }
  output_map { key: "Y" value: "Y" } } ] }
"""

SAMPLE: dict[str, Any] = {
    "summary": "One row.",
    "id": "a",
    "inputs": {"X": [[1.0, 2.0, 3.0]], "S": [["a"]]},
    "parameters": {"top_k": 3, "strict": True},
    "outputs": [{"name": "Y", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}],
    "tolerance": {"absolute": 1e-5, "relative": 0.01},
}
