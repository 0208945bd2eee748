"""What runs in production is wired from real parts."""

from __future__ import annotations

import ast
from pathlib import Path

from tidegate import ports
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import control_ports
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint
from tidegate.settings import Settings
from tidegate.triton.repository import TritonRepository

SOURCES = Path(ports.__file__).parents[1]
FAKES = {name for name in ports.__all__ if name.startswith("Memory")}


def names(file: Path) -> set[str]:
    """Every name that a module imports or reads."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.ImportFrom():
                found |= {alias.name for alias in node.names}
            case ast.Attribute():
                found.add(node.attr)
            case ast.Name():
                found.add(node.id)
    return found


def test_no_part_in_memory_is_wired_into_what_runs_in_production() -> None:
    assert FAKES, "the parts in memory are named so"
    used = {
        file.relative_to(SOURCES).as_posix(): names(file) & FAKES
        for file in SOURCES.rglob("*.py")
        if file.parent.name != "ports"
    }
    assert {file: fakes for file, fakes in used.items() if fakes} == {}


def test_models_are_loaded_through_grpc_by_whoever_loads() -> None:
    settings = Settings(bucket="models", registry_table="registry", aws_endpoint_url="http://127.0.0.1:1")
    entry = RegisteredEndpoint(Endpoint("a", "127.0.0.1", 8000), EndpointState.READY, 0.0, grpc_port=8001)
    repository = control_ports(settings, build_transport(settings)).repository_of(entry)
    assert isinstance(repository, TritonRepository)
    assert repository.grpc_port == 8001, "over HTTP a load makes other requests wait"
