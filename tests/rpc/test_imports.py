"""Where no gRPC is served, its library is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["lambdas.gateway", "lambdas.resolve", "bootstrap.functions", "bootstrap.gateway_process"]
)
def test_neither_the_functions_nor_the_local_gateway_import_grpc(module: str) -> None:
    code = f"import sys, tidegate.{module}; print([name for name in sys.modules if name.split('.')[0] == 'grpc' or '.rpc' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
