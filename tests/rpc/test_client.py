"""The SDK against a stack that serves gRPC: over both protocols, with the bundle and the addresses that the stack gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tidegate.client import AsyncClient, Client
from tidegate.errors import DeadlineError, ModelRefusedError, UnavailableError

from bench.envoy import envoy
from tests.support.certificates import self_signed
from tests.support.parts import need

from .conftest import RpcStack

ADDED = {name: np.arange(16, dtype=np.int32).reshape(1, 16) for name in ("INPUT0", "INPUT1")}
PLAIN = {name: [[*range(16)]] for name in ADDED}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_sdk_calls_the_models_of_a_stack(served: RpcStack, protocol: str) -> None:
    with Client(served.stack.url, protocol=protocol) as client:
        for inputs in (ADDED, PLAIN):
            answer = client.infer("add", inputs)
            assert answer.outputs["OUTPUT0"] == [[2 * number for number in range(16)]]
            assert answer.array("OUTPUT0").dtype == np.int32
        assert client.revision is not None
        echoed = client.infer("echo", {"INPUT": np.ones(2, np.float32)}, {"country": "CA"})
        assert echoed.decision.rule == "canada"
        assert "boost" in echoed.outputs["PARAMETERS"][0].lower()
        with pytest.raises(ModelRefusedError):
            client.infer("add", {"INPUT0": np.zeros((1, 3), np.int32)})
        with pytest.raises(DeadlineError):
            client.infer("sleepy", {"SLEEP_MS": np.array([5000], np.int32)}, timeout_ms=200.0)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_sdk_calls_the_models_of_a_stack_from_a_loop(served: RpcStack, protocol: str) -> None:
    async def ask() -> None:
        async with AsyncClient(served.stack.url, protocol=protocol) as client:
            answers = await asyncio.gather(*(client.infer("add", PLAIN) for _ in range(10)))
            assert all(each.outputs["OUTPUT1"] == [[0] * 16] for each in answers)

    asyncio.run(ask())


@pytest.fixture
def encrypted(served: RpcStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a proxy with TLS in front of the Triton, whose authority Python trusts."""
    need("envoy")
    certificate, key = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with envoy(f"http://{served.triton}", "alpha", over_http2=True, certificate=(certificate, key)) as port:
        yield f"https://localhost:{port}"


def test_rpcs_pass_over_tls(served: RpcStack, encrypted: str) -> None:
    with Client(served.stack.url, protocol="grpc", proxy=encrypted) as client:
        answer = client.infer("add", PLAIN)
        assert (answer.outputs["OUTPUT1"], answer.address) == ([[0] * 16], encrypted)

    async def ask() -> None:
        async with AsyncClient(served.stack.url, protocol="grpc", proxy=encrypted) as client:
            assert (await client.infer("add", PLAIN)).outputs["OUTPUT1"] == [[0] * 16]

    asyncio.run(ask())


def test_a_server_with_another_authority_gets_no_request(
    served: RpcStack, encrypted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other, _ = self_signed(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with (
        Client(served.stack.url, protocol="grpc", proxy=encrypted) as client,
        pytest.raises(UnavailableError),
    ):
        client.infer("add", PLAIN, timeout_ms=3000.0)
