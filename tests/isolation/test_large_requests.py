"""Requests as large, or as many, as callers can send: the gateway keeps serving everybody else."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable

import pytest

from tests.isolation.conftest import Bystander
from tests.isolation.place import Place, infer, v1
from tests.support.processes import resident_mib
from tests.support.wire import Reply, Wire, ask

MIB = 1 << 20
BODY_BYTES = 60 * MIB
REFUSED = {400, 413, 415, 503}
ANSWERED = {200, 504, *REFUSED}
"""Where a request is sent on: whether it is answered in time depends on the machine."""


def big_json(more: bytes) -> bytes:
    """A tensor of as much JSON, and `more` members behind it."""
    size = (BODY_BYTES - len(more) - 90) // 4
    head = b'{"inputs": [{"name": "X", "datatype": "FP32", "shape": [%d], "data": [' % size
    return head + b"0.5," * (size - 1) + b"0.5]}]" + more + b"}"


BODIES: dict[str, Callable[[], tuple[bytes, set[int]]]] = {
    "parameters at the end of 60 MiB of JSON": lambda: (
        infer("fragile", big_json(b', "parameters": {"country": "US"}')),
        ANSWERED,
    ),
    "60 MiB of parameters": lambda: (
        infer("fragile", b'{"parameters": {"country": "' + b"x" * BODY_BYTES + b'"}, "inputs": []}'),
        REFUSED,
    ),
    "a name for parameters in 60 MiB of text": lambda: (
        infer("fragile", b'{"inputs": [], "id": "' + b'\\"parameters\\":' * (BODY_BYTES // 15) + b'"}'),
        ANSWERED,
    ),
    "20 million texts": lambda: (
        v1("texts/infer", b'{"inputs": {"TEXT": [' + b'"",' * 20_000_000 + b'""]}}'),
        REFUSED,
    ),
    "as many texts as are taken": lambda: (
        v1("texts/infer", b'{"inputs": {"TEXT": [' + b'"",' * 999_999 + b'""]}}'),
        ANSWERED,
    ),
    "as much context as is taken": lambda: (
        v1("texts/infer", b'{"context": {"country": [' + b"{}," * (7 * MIB // 3) + b"{}]}}"),
        ANSWERED,
    ),
    "60 MiB of nesting beside the inputs": lambda: (
        v1("texts/infer", b'{"inputs": {"TEXT": ' + b"[" * BODY_BYTES),
        REFUSED,
    ),
    "60 MiB of empty objects": lambda: (
        v1("texts/infer", b'{"context": {"country": [' + b"{}," * (BODY_BYTES // 3) + b"{}]}}"),
        REFUSED,
    ),
    "what gzip makes of 60 MiB of parameters": lambda: (
        infer(
            "fragile",
            gzip.compress(b'{"parameters": {"country": "' + b"x" * BODY_BYTES + b'"}, "inputs": []}', 1),
            "attacker",
            ("Content-Encoding", "gzip"),
        ),
        REFUSED,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_large_body_is_answered_beside_everybody_else(place: Place, bystander: Bystander, name: str) -> None:
    request, statuses = BODIES[name]()
    before, held_mib = place.server_pids(), resident_mib(place.gateway_pid)
    with bystander():
        reply = ask(place.port, request)
    assert reply is not None
    assert reply.status in statuses, reply.body[:300]
    assert place.server_pids() == before
    assert resident_mib(place.gateway_pid) < held_mib + 700


@pytest.mark.parametrize("where", ["one header", "many headers", "the path", "one line of them"])
def test_a_head_without_an_end_is_refused_as_it_comes(place: Place, bystander: Bystander, where: str) -> None:
    start, piece, status = {
        "one header": (b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-Large: ", b"a" * MIB, 431),
        "many headers": (b"GET /v2 HTTP/1.1\r\nHost: a\r\n", b"X-Many: 1\r\n" * (MIB // 11), 431),
        "the path": (b"GET /", b"a" * MIB, 431),
        "one line of them": (b"GET /v2 HTTP/1.1\r\nHost: a\r\n", b"a" * MIB, 431),
    }[where]
    held_mib = resident_mib(place.gateway_pid)
    with bystander(), Wire(place.port) as wire:
        wire.send(start)
        for _ in range(50):
            wire.send(piece)
        reply = wire.reply()
    # An answer may be lost with the connection, since the request was never read completely.
    assert reply is None or reply.status in (status, 414)
    assert resident_mib(place.gateway_pid) < held_mib + 50


@pytest.mark.parametrize(
    ("objective", "status"), [("nowhere", 404), ("nowhere", 403)], ids=["an unknown one", "without a grant"]
)
def test_a_body_is_not_kept_before_its_caller_and_objective_are_known(
    place: Place, bystander: Bystander, objective: str, status: int
) -> None:
    caller = "attacker" if status == 404 else "nobody"
    request = infer(objective, bytes(59 * MIB), caller)
    held_mib = resident_mib(place.gateway_pid)
    with bystander():
        replies = together([request] * 12, place.port)
    assert {reply.status for reply in replies if reply is not None} <= {403, 404}
    assert resident_mib(place.gateway_pid) < held_mib + 100


def test_many_large_bodies_at_once_are_bounded_as_a_whole(place: Place, bystander: Bystander) -> None:
    request = infer("fragile", big_json(b', "parameters": {"country": "US"}'))
    held_mib = resident_mib(place.gateway_pid)
    before = place.server_pids()
    with bystander():
        replies = together([request] * 12, place.port)
    assert {reply.status for reply in replies if reply is not None} <= ANSWERED
    assert place.server_pids() == before
    assert resident_mib(place.gateway_pid) < held_mib + 800


def test_streamed_bodies_that_stall_or_end_early_hold_up_nobody(place: Place, bystander: Bystander) -> None:
    before = place.server_pids()
    request = binary("fragile", 8 * MIB)
    wires = [Wire(place.port) for _ in range(24)]
    with bystander(), bystander("slow", per_s=3):
        for number, wire in enumerate(wires):
            wire.send(request[: (2 * MIB, 1000, 1 * MIB, len(request) - 1)[number % 4]])
        for wire in wires[::2]:
            wire.socket.close()
        for wire in wires[1::2]:
            reply = wire.reply()
            assert reply is None or reply.status in (408, 503, 504)
            wire.socket.close()
        assert place.ask(request).status == 200
    assert place.server_pids() == before


def binary(objective: str, size_bytes: int) -> bytes:
    """A request with a tensor in binary."""
    tensor = {
        "name": "X",
        "datatype": "FP32",
        "shape": [size_bytes // 4],
        "parameters": {"binary_data_size": size_bytes},
    }
    asked = {"name": "Y", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [asked]}).encode()
    length = ("Inference-Header-Content-Length", str(len(head)))
    return infer(objective, head + bytes(size_bytes), "attacker", length)


def together(requests: list[bytes], port: int) -> list[Reply | None]:
    """The answers to requests that are sent at the same time, each over a connection of its own."""
    replies: list[Reply | None] = [None] * len(requests)

    def send(number: int) -> None:
        replies[number] = ask(port, requests[number], 60)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies
