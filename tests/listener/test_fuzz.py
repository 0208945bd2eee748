"""Mutated requests: the server survives each, answers only valid HTTP, leaks nothing and never hangs."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import socket
from pathlib import Path

from tests.listener.server import Client, EndError, Served, chunked, get, post, serving, until
from tests.listener.test_refusals import REFUSED, SMUGGLED

SEED = 20_261_129
REQUESTS = 2500
CORPUS = [
    get(), get(b"/stream"), get(b"/scope?a=b"), get(b"/empty"), post(b"abc" * 40), post(b"abc", b"/ignore"),
    chunked(b"abc", b"d" * 300, b""), post(b"x", headers=b"Expect: 100-continue\r\n"),
    post(b"x", headers=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", post(b"abc", headers=b"Connection: close\r\n"),
    *(request for request, _ in REFUSED.values()), *(request for request in SMUGGLED.values() if len(request) < 2000),
]  # fmt: skip
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\r\n\r\n", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n", b"Host: a\r\n", b"HTTP/1.0", b"HTTP/2.0", b"Upgrade: x\r\nConnection: upgrade\r\n", b"\xff",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"f" * 20, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip


def _mutated(chance: random.Random) -> bytes:
    """One to three requests, most of them damaged in one to four places."""
    data = bytearray(b"".join(chance.choices(CORPUS, k=chance.randint(1, 3))))
    for _ in range(chance.randint(0, 4)):
        at = chance.randint(0, len(data))
        match chance.randint(0, 5):
            case 0:
                data[at:at] = chance.choice(TOKENS)
            case 1:
                del data[at : at + chance.randint(1, 12)]
            case 2:
                data[at : at + 1] = bytes([chance.randint(0, 255)])
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 60)]
            case 4:
                del data[at:]
            case _:
                data[at : at + 4] = chance.choice(TOKENS)
    return bytes(data)


def _say(served: Served, data: bytes, chance: random.Random) -> int:
    """Send `data`, whole or in two parts, and read every answer up to the end of the connection; return how many."""
    cut = chance.randint(0, len(data)) if chance.random() < 0.4 else 0
    answers = 0
    with served.connect() as client:
        with contextlib.suppress(OSError):
            client.send(*(part for part in (data[:cut], data[cut:]) if part))
            client.sock.shutdown(socket.SHUT_WR)
        try:
            while True:
                _read(client)
                answers += 1
        except (EndError, OSError):
            return answers


def _read(client: Client) -> None:
    answer = client.read()
    assert 100 <= answer.status <= 599
    if answer.status >= 400:
        assert answer.status != 500, answer
        assert answer.error


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_mutated_requests() -> None:
    chance = random.Random(SEED)
    with serving() as served:
        for _ in range(300):
            _say(served, _mutated(chance), chance)
        until(lambda: served.listening.listener.connections == 0)
        gc.collect()
        descriptors, memory_kb = _descriptors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers = 0
        for _ in range(REQUESTS):
            answers += _say(served, _mutated(chance), chance)
            served.app.bodies.clear()
            served.app.events.clear()
        assert answers > REQUESTS // 2
        until(lambda: served.listening.listener.connections == 0)
        assert served.healthy()
        until(lambda: _descriptors() <= descriptors)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb < 30_000
