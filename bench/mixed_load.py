"""Requests of every kind that a gateway serves or refuses, in a mix that is the same each time."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

CALLERS = 500
"""The callers that the rules know; requests of others are refused."""

AT_ONCE = 24
"""Requests that are under way together, each on a connection of its own."""

TIMEOUT_S = 60.0
SERVICE = "/inference.GRPCInferenceService/"
RPCS_OF_A_CHANNEL = 2_000
REQUESTS_OF_A_CONNECTION = 200
LARGE = 262_144
"""The FP32 values of a large request: 1 MiB."""

_SMALL = 16
_MIDDLE = 30_000
_SEQUENCES = 2_000_000
_UNENDED = 50
"""One of so many sequences has no end."""

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


class Line:
    """A kept connection, replaced after an answer that closes it and every `REQUESTS_OF_A_CONNECTION` requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._left = 0

    async def ask(self, request: bytes) -> int:
        """Send a request, and read its whole answer. Return the status."""
        reader, writer = await self._open()
        writer.write(request)
        await writer.drain()
        status, keeps, body = await _answer(reader)
        if status >= 500 and status != 505:
            print(f"{status}: {body[:200]!r}", file=sys.stderr, flush=True)
        self._left -= 1
        if not keeps or not self._left:
            self.close()
        return status

    async def leave(self, request: bytes, wait_for_some: bool) -> str:
        """Send a request, or a part of one, and reset the connection, at once or after the first bytes of the answer."""
        reader, writer = await self._open()
        writer.write(request)
        await writer.drain()
        if wait_for_some:
            await reader.read(1)
        writer.transport.abort()
        self._streams = None
        return "left"

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=4 * 1024 * 1024)
            self._left = REQUESTS_OF_A_CONNECTION
        return self._streams


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Read an answer; return its status, whether the connection stays open, and the body, or the last part of one in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status, body = int(head[9:12]), b""
    place = head.find(b"\r\ncontent-length:")
    if place >= 0:
        body = await reader.readexactly(int(head[place + 17 : head.index(b"\r\n", place + 2)]))
    elif b"\r\ntransfer-encoding: chunked" in head:
        while chunk := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body = await reader.readexactly(chunk + 2)
        await reader.readexactly(2)
    return status, b"\r\nconnection: close" not in head, body


@dataclass(slots=True)
class Rpcs:
    """The channel for RPCs, which is replaced every `RPCS_OF_A_CHANNEL` RPCs."""

    address: str
    _channel: Any = None
    _left: int = 0
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def channel(self) -> Any:
        if not self._left:
            self.close()
            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
            self._left = RPCS_OF_A_CHANNEL
        self._left -= 1
        return self._channel

    def close(self) -> None:
        if self._channel is not None:
            task = asyncio.get_running_loop().create_task(self._channel.close(TIMEOUT_S))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def closed(self) -> None:
        self.close()
        await asyncio.gather(*self._closing)


class MixedLoad:
    """Sends requests of all kinds of `MIX` in turn by chance, with a member of its own in each context.

    Args:
        url: the gateway's.
        rpc_address: where it serves gRPC.
        mix: the weight of each kind, by its name.
    """

    def __init__(self, url: str, rpc_address: str, mix: dict[str, float] | None = None) -> None:
        self.outcomes: dict[str, Counter[str]] = {}
        self.requests = 0
        self._mix = MIX if mix is None else mix
        self._rpcs = Rpcs(rpc_address)
        port = urlsplit(url).port or 80
        self._lines = [Line(port) for _ in range(AT_ONCE)]
        # The same requests in the same order each time.
        self._chance = random.Random(200_000)

    async def send(self, requests: int) -> None:
        """Send that many requests, and wait for the answers."""
        until = self.requests + requests
        await asyncio.gather(*(self._work(line, until) for line in self._lines))

    async def close(self) -> None:
        for line in self._lines:
            line.close()
        await self._rpcs.closed()

    async def _work(self, line: Line, until: int) -> None:
        names, weights = list(self._mix), list(self._mix.values())
        while self.requests < until:
            (name,) = self._chance.choices(names, weights)
            self.requests += 1
            number = self.requests
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    outcome = await KINDS[name](self, line, number)
            except (OSError, EOFError, TimeoutError) as error:
                line.close()
                outcome = type(error).__name__
            except grpc.aio.AioRpcError as error:
                outcome = error.code().name
            self.outcomes.setdefault(name, Counter())[str(outcome)] += 1

    # Each kind: what is asked, and how.

    async def json(self, line: Line, number: int) -> int:
        return await line.ask(_post(_infer("echo"), _json_body(number), number))

    async def binary(self, line: Line, number: int) -> int:
        return await line.ask(_binary("echo", _SMALL, number))

    async def large(self, line: Line, number: int) -> int:
        return await line.ask(_binary("echo", LARGE, number))

    async def large_chunked(self, line: Line, number: int) -> int:
        return await line.ask(_binary("echo", LARGE, number, chunked=True))

    async def large_v1(self, line: Line, number: int) -> int:
        body = _plain_body(number, "INPUT", [number + 0.5] * _MIDDLE)
        return await line.ask(_post("/v1/objectives/echo/infer", body, number, in_body=True))

    async def v1(self, line: Line, number: int) -> int:
        body = _plain_body(number, "INPUT", [1.0, number])
        return await line.ask(_post("/v1/objectives/echo/infer", body, number, in_body=True))

    async def resolve(self, line: Line, number: int) -> int:
        body = json.dumps({"context": _context(number)}).encode()
        path = f"/v1/objectives/echo/resolve{'?explain=true' if number % 2 else ''}"
        return await line.ask(_post(path, body, number, in_body=True))

    async def compressed(self, line: Line, number: int) -> int:
        headers = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        return await line.ask(_post(_infer("echo"), gzip.compress(_json_body(number), 1), number, headers))

    async def pinned(self, line: Line, number: int) -> int:
        return await line.ask(_post(_infer("echo"), _json_body(number), number, {"Tidegate-Override": "echo/1"}))

    async def hedged(self, line: Line, number: int) -> int:
        return await line.ask(_binary("hedged", _SMALL, number))

    async def shadowed(self, line: Line, number: int) -> int:
        return await line.ask(_binary("shadowed", _SMALL, number))

    async def metadata(self, line: Line, number: int) -> int:
        path = ("/v2/models/echo", "/v2/models/echo/stats", "/v2/health/ready", "/v1/objectives/echo")[number % 4]
        return await line.ask(_get(path, number))

    async def generate(self, line: Line, number: int) -> int:
        return await line.ask(_post("/v2/models/stories/generate_stream", _story(), number))

    async def v1_stream(self, line: Line, number: int) -> int:
        body = _plain_body(number, "PROMPT", "the king")
        return await line.ask(_post("/v1/objectives/stories/stream", body, number, in_body=True))

    async def sequence(self, line: Line, number: int) -> int:
        """Send the three requests of a sequence."""
        self.requests += 2
        status = 200
        for turn in range(3):
            marks = {"sequence_start": turn == 0, "sequence_end": turn == 2 and number % _UNENDED != 0}
            tensor = {"name": "X", "shape": [1, 1], "datatype": "INT32", "data": [turn]}
            document = {"inputs": [tensor], "parameters": {"sequence_id": _SEQUENCES + number, **marks}}
            status = max(status, await line.ask(_post(_infer("summing"), json.dumps(document).encode(), number)))
        return status

    async def rpc(self, _line: Line, number: int) -> str:
        return await self._infer(_message("echo", _SMALL), number)

    async def large_rpc(self, _line: Line, number: int) -> str:
        return await self._infer(_message("echo", LARGE), number)

    async def refused_rpc(self, _line: Line, number: int) -> str:
        return await self._infer(_message(f"unknown-{number}", _SMALL), number)

    async def left_rpc(self, _line: Line, number: int) -> str:
        call = self._rpcs.channel().unary_unary(f"{SERVICE}ModelInfer")(
            _message("echo", LARGE), metadata=_metadata(number)
        )
        await asyncio.sleep(0.001 * (number % 8))
        call.cancel()
        return "left"

    async def rpc_stream(self, _line: Line, number: int) -> str:
        call = self._rpcs.channel().stream_stream(f"{SERVICE}ModelStreamInfer")(metadata=_metadata(number))
        await call.write(_story_message())
        await call.done_writing()
        return f"{await _read_all(call)} responses"

    async def left_rpc_stream(self, _line: Line, number: int) -> str:
        call = self._rpcs.channel().stream_stream(f"{SERVICE}ModelStreamInfer")(metadata=_metadata(number))
        await call.write(_story_message())
        await call.read()
        call.cancel()
        return "left"

    async def malformed(self, line: Line, number: int) -> int:
        body = (b"{", b'{"inputs": 1}', b'{"inputs": [{"name": "Y"}]}', b"[" * 50)[number % 4]
        return await line.ask(_post(_infer("echo"), body, number))

    async def not_http(self, line: Line, number: int) -> int:
        return await line.ask(b"GET /%d HTTP/9.1\r\n\r\n" % number)

    async def bad_context(self, line: Line, number: int) -> int:
        return await line.ask(_post(_infer("echo"), _json_body(number), number, context={f"other-{number}": number}))

    async def unknown_objective(self, line: Line, number: int) -> int:
        return await line.ask(_binary(f"unknown-{number}", _SMALL, number))

    async def unknown_path(self, line: Line, number: int) -> int:
        return await line.ask(_get(f"/v{number % 4}/{number}", number))

    async def unknown_caller(self, line: Line, number: int) -> int:
        return await line.ask(_post(_infer("echo"), _json_body(number), number, caller=f"stranger-{number}"))

    async def limited(self, line: Line, number: int) -> int:
        return await line.ask(_binary("limited", _SMALL, number))

    async def left(self, line: Line, number: int) -> str:
        """Leave after the request, after a part of a large one, or within the answer to one."""
        match number % 3:
            case 0:
                return await line.leave(_binary("echo", _SMALL, number), False)
            case 1:
                return await line.leave(_binary("echo", LARGE, number)[: 2 * LARGE], False)
            case _:
                return await line.leave(_binary("echo", LARGE, number), True)

    async def left_stream(self, line: Line, number: int) -> str:
        return await line.leave(_post("/v2/models/stories/generate_stream", _story(pause_s=0.01), number), True)

    async def _infer(self, message: bytes, number: int) -> str:
        method = self._rpcs.channel().unary_unary(f"{SERVICE}ModelInfer")
        await method(message, metadata=_metadata(number))
        return "OK"


MIX = {
    "binary": 20.0,
    "json": 14.0,
    "v1": 11.0,
    "rpc": 10.0,
    "sequence": 3.0,
    "compressed": 4.0,
    "hedged": 4.0,
    "shadowed": 4.0,
    "generate": 3.0,
    "rpc_stream": 3.4,
    "v1_stream": 2.0,
    "metadata": 3.0,
    "resolve": 2.0,
    "pinned": 2.0,
    "large": 1.5,
    "large_chunked": 0.5,
    "large_v1": 0.5,
    "large_rpc": 0.5,
    "limited": 2.0,
    "malformed": 1.5,
    "not_http": 0.5,
    "bad_context": 1.0,
    "unknown_objective": 1.5,
    "unknown_path": 1.0,
    "unknown_caller": 1.0,
    "refused_rpc": 1.0,
    "left": 1.5,
    "left_stream": 0.5,
    "left_rpc": 0.5,
    # Few: a server of Triton 2.51 was ended by SIGABRT beside a thousand cancelled streams, once in five runs.
    "left_rpc_stream": 0.1,
}
"""The weight of each kind; a sequence is three requests."""

GOOD = frozenset({"200", "OK", "left", "5 responses"})
EXPECTED = {
    "limited": frozenset({"200", "429"}),
    "malformed": frozenset({"400"}),
    "not_http": frozenset({"505"}),
    "bad_context": frozenset({"400"}),
    "unknown_objective": frozenset({"404"}),
    "unknown_path": frozenset({"404"}),
    "unknown_caller": frozenset({"403"}),
    "refused_rpc": frozenset({"NOT_FOUND"}),
}
"""How the requests of a kind must end; those of all others with one of `GOOD`."""

KINDS: dict[str, Callable[[MixedLoad, Line, int], Awaitable[Any]]] = {name: getattr(MixedLoad, name) for name in MIX}


async def _read_all(call: Any) -> int:
    count = 0
    while await call.read() is not grpc.aio.EOF:
        count += 1
    return count


def _infer(objective: str) -> str:
    return f"/v2/models/{objective}/infer"


def _context(number: int) -> dict[str, Any]:
    device = ("tv", "mobile", "web")[number % 3]
    return {"member_id": f"member-{number}", "country": f"C{number % 997}", "device": device}


def _caller(number: int) -> str:
    return f"caller-{number % CALLERS}"


def _get(path: str, number: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nTidegate-Caller: {_caller(number)}\r\n\r\n".encode()


def _post(
    path: str,
    body: bytes,
    number: int,
    headers: dict[str, str] | None = None,
    *,
    caller: str | None = None,
    context: dict[str, Any] | None = None,
    in_body: bool = False,
    chunked: bool = False,
) -> bytes:
    """Return a request. Its context is in a header unless the body has it (`in_body`)."""
    length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    sent = {"Host": "bench", "Tidegate-Caller": caller or _caller(number), **length, **(headers or {})}
    if in_body:
        sent["Content-Type"] = "application/json"
    else:
        sent["Tidegate-Context"] = json.dumps(_context(number) if context is None else context)
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    return "\r\n".join([*lines, "", ""]).encode() + content


def _binary(objective: str, values: int, number: int, *, chunked: bool = False) -> bytes:
    tensor = _tensor(values)
    inputs = [{"name": "INPUT", "shape": [values], "datatype": "FP32", "parameters": {"binary_data_size": len(tensor)}}]
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    return _post(_infer(objective), header + tensor, number, length, chunked=chunked)


def _json_body(number: int) -> bytes:
    tensor = {"name": "INPUT", "shape": [2], "datatype": "FP32", "data": [1.0, number]}
    return json.dumps({"id": str(number), "inputs": [tensor]}).encode()


def _plain_body(number: int, name: str, values: Any) -> bytes:
    return json.dumps({"context": _context(number), "inputs": {name: values}}).encode()


def _story(pause_s: float = 0.0) -> bytes:
    return json.dumps({"PROMPT": "the king", "parameters": {"pause_s": pause_s}}).encode()


def _metadata(number: int) -> tuple[tuple[str, str], ...]:
    return (("tidegate-caller", _caller(number)), ("tidegate-context", json.dumps(_context(number))))


def _tensor(values: int) -> bytes:
    if values not in _tensors:
        _tensors[values] = struct.pack(f"<{values}f", *range(values))
    return _tensors[values]


_tensors: dict[int, bytes] = {}


def _message(objective: str, values: int) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=objective)
    request.inputs.add(name="INPUT", datatype="FP32", shape=[values])
    request.raw_input_contents.append(_tensor(values))
    return bytes(request.SerializeToString())


def _story_message() -> bytes:
    request = service_pb2.ModelInferRequest(model_name="stories")
    request.inputs.add(name="PROMPT", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"the king")
    return bytes(request.SerializeToString())
