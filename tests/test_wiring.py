"""What runs in production is wired from real parts."""

from __future__ import annotations

from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import control_ports
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint
from tidegate.settings import Settings
from tidegate.triton.repository import TritonRepository


def test_models_are_loaded_through_grpc_by_whoever_loads() -> None:
    settings = Settings(bucket="models", registry_table="registry", aws_endpoint_url="http://127.0.0.1:1")
    entry = RegisteredEndpoint(Endpoint("a", "127.0.0.1", 8000), EndpointState.READY, 0.0, grpc_port=8001)
    repository = control_ports(settings, build_transport(settings)).repository_of(entry)
    assert isinstance(repository, TritonRepository)
    assert repository.grpc_port == 8001, "over HTTP a load makes other requests wait"
