"""Triton's schema of a model's config, which tritonclient has.

It is loaded by its file: the package around it imports Triton's client for gRPC with numpy, 0.1 s of CPU time, and nothing that
reads models needs these.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

_NAME = "tritonclient.grpc.model_config_pb2"


def _load() -> ModuleType:
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package, _, module = _NAME.rpartition(".")
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations is not None
    (folder,) = found.submodule_search_locations
    spec = importlib.util.spec_from_file_location(_NAME, f"{folder}/{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    # As if it had been imported: Triton's client, where it is imported later, takes it from there.
    sys.modules[_NAME] = loaded
    spec.loader.exec_module(loaded)
    return loaded


_SCHEMA = _load()
ModelConfig = _SCHEMA.ModelConfig
DESCRIPTOR = _SCHEMA.DESCRIPTOR
TYPE_STRING: int = _SCHEMA.TYPE_STRING
