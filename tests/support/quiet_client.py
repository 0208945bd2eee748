"""A well-behaved client in a process of its own, which goes on at a constant rate while something else happens.

Each connection is kept alive and has its times by a clock that does not wait for answers, so that a slow answer is not
hidden by the requests that were not sent meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 120.0
SERIAL = b"<serial>"
"""As many bytes as its number has digits."""

RPC = "/inference.GRPCInferenceService/ModelInfer"
MOST_SHOWN = 160
"""Characters of an error that are reported."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was due and how long its answer took from then. `outcome` is `<status> <model>`, a status and
    an error, or what went wrong with the connection; an RPC that succeeds is a 200."""

    due_s: float
    took_ms: float
    outcome: str


@dataclass(frozen=True, slots=True)
class QuietReport:
    """Everything that the client saw."""

    answered: tuple[Answered, ...]

    def outcomes(self) -> Counter[str]:
        """How often each outcome came."""
        return Counter(each.outcome for each in self.answered)

    def percentile_ms(self, percent: int) -> float:
        """The time within which `percent` of the answers came, in milliseconds."""
        took = sorted(each.took_ms for each in self.answered)
        return took[min(len(took) - 1, len(took) * percent // 100)]


class QuietClient:
    """The client's process, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._report: QuietReport | None = None

    def stop(self) -> QuietReport:
        """End the client; what it saw."""
        if self._report is None:
            output, _ = self._process.communicate("", timeout=300)
            self._report = QuietReport(tuple(Answered(*each) for each in json.loads(output.splitlines()[-1])))
        return self._report


@contextlib.contextmanager
def quiet_client(
    port: int,
    request: bytes,
    *,
    per_s: float = 30,
    connections: int = 3,
    timeout_s: float = 15.0,
    is_kept: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[QuietClient]:
    """Run a client for as long as the block lasts; it has had its first answer when the block begins.

    Args:
        port: where to connect, on this machine.
        request: the whole request that it repeats, as bytes; each `SERIAL` in it becomes a number of its own.
        per_s: requests per second, over all connections.
        connections: how many it keeps.
        timeout_s: how long it waits for an answer.
        is_kept: whether a connection is kept; else each request has one of its own.
        metadata: that of RPCs, whose message `request` is; None: the requests are HTTP/1.1.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.quiet_client"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told: dict[str, Any] = {"port": port, "per_s": per_s, "connections": connections, "timeout_s": timeout_s}
    told |= {"is_kept": is_kept, "metadata": None if metadata is None else dict(metadata)}
    try:
        process.stdin.write(json.dumps({**told, "request": base64.b64encode(request).decode()}) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "running\n", "the quiet client got no first answer"
        client = QuietClient(process)
        yield client
        client.stop()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class _Asking(Protocol):
    """One connection of the client."""

    def ask(self) -> str:
        """Send the request; the outcome."""


class _Connection:
    """One over HTTP/1.1, opened again whenever its end has come."""

    def __init__(self, port: int, request: bytes, timeout_s: float, serials: Iterator[int], *, is_kept: bool) -> None:
        self._port, self._request, self._timeout_s, self._is_kept = port, request, timeout_s, is_kept
        self._socket: socket.socket | None = None
        self._serials = serials

    def ask(self) -> str:
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=self._timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(self._request.replace(SERIAL, b"%08d" % next(self._serials)))
            head, body = _read(self._socket)
        except (OSError, ValueError) as error:
            self._close()
            return type(error).__name__
        if not self._is_kept or re.search(rb"\r\nconnection: *close", head, re.IGNORECASE):
            self._close()
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            return f"{status} {body[:MOST_SHOWN].decode(errors='replace')}"
        model = re.search(rb"\r\ntidegate-model: *([^\r]*)", head, re.IGNORECASE)
        return f"200 {model[1].decode()}" if model else "200"

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


class _Rpc:
    """One over gRPC, which opens it again by itself."""

    def __init__(self, port: int, request: bytes, timeout_s: float, metadata: Mapping[str, str]) -> None:
        import grpc

        # Without this, all channels of a process share one connection.
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
        self._call = channel.unary_unary(RPC)
        self._error = grpc.RpcError
        self._request, self._timeout_s, self._metadata = request, timeout_s, tuple(metadata.items())

    def ask(self) -> str:
        try:
            _, call = self._call.with_call(self._request, timeout=self._timeout_s, metadata=self._metadata)
        except self._error as error:
            return f"{error.code().name} {error.details()[:MOST_SHOWN]}"
        return f"200 {dict(call.initial_metadata()).get('tidegate-model', '')}".rstrip()


def _read(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one answer with a `Content-Length`."""
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        _more(connection, received)
    head = bytes(received[:end])
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length is None:
        raise ValueError("an answer without a length")
    while len(received) < end + 4 + int(length[1]):
        _more(connection, received)
    return head, bytes(received[end + 4 :])


def _more(connection: socket.socket, received: bytearray) -> None:
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionError("closed before the whole answer")
    received += data


def _main() -> None:
    told = json.loads(sys.stdin.readline())
    request, count = base64.b64decode(told["request"]), told["connections"]
    serials, metadata, common = itertools.count(), told["metadata"], (told["port"], request, told["timeout_s"])
    connections: list[_Asking] = [
        _Connection(*common, serials, is_kept=told["is_kept"]) if metadata is None else _Rpc(*common, metadata)
        for _ in range(count)
    ]
    answered: list[tuple[float, float, str]] = []
    stopped = threading.Event()
    interval_s = count / told["per_s"]

    def go_on(number: int) -> None:
        due_s = time.monotonic() + interval_s * number / count
        while not stopped.wait(max(0.0, due_s - time.monotonic())):
            outcome = connections[number].ask()
            answered.append((due_s, (time.monotonic() - due_s) * 1e3, outcome))
            due_s += interval_s

    end_s = time.monotonic() + STARTS_WITHIN_S
    while not (first := connections[0].ask()).startswith("200") and time.monotonic() < end_s:
        time.sleep(0.05)
    print("running" if first.startswith("200") else first, flush=True)
    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopped.set()
    for thread in threads:
        thread.join()
    print(json.dumps(answered), flush=True)


if __name__ == "__main__":
    _main()
