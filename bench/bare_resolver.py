"""A resolver that decides nothing: it gives every question the same answer. What Envoy takes to ask it is the least of any resolver.

python -m bench.bare_resolver PORT [HEADER …]
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from bench.envoy import free_port, wait
from bench.gateway import CONTEXT


@contextmanager
def bare_resolver(headers: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Run one whose answer has some headers, `NAME: VALUE`; yield its port and its process."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare_resolver", str(port), *headers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


class Bare(asyncio.Protocol):
    """Answers whatever comes, as each question of Envoy comes in one part."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own kind is none of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  # asyncio's signature
        self._transport.write(self._answer)


@contextmanager
def beside_bare_resolver(folder: Path, envoy: Path) -> Iterator[tuple[int, int, int]]:
    """Run Envoy with the configuration in `folder`, and in place of its resolver a bare one, whose answer is one of that resolver's;
    yield the port, Envoy's process, and the bare resolver's."""
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.rglob("*.json"):
            to = Path(copy, file.relative_to(folder))
            to.parent.mkdir(exist_ok=True)
            to.write_text(file.read_text().replace(str(folder), copy))
        config = Path(copy, "envoy.json")
        settings = json.loads(config.read_text())
        (listener,), (resolver,) = (settings["static_resources"][each] for each in ("listeners", "clusters"))
        place = resolver["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        port = listener["address"]["socket_address"]["port_value"] = free_port()
        with bare_resolver(_answer(place["address"], place["port_value"])) as (resolver_port, resolver_pid):
            place["port_value"] = resolver_port
            config.write_text(json.dumps(settings))
            process = subprocess.Popen([str(envoy), "-c", str(config), "--disable-hot-restart", "--log-level", "error"])
            try:
                wait(port, process)
                yield port, process.pid, resolver_pid
            finally:
                process.terminate()
                process.wait(10)


def _answer(host: str, port: int) -> list[str]:
    """The headers of a resolver's answer."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("POST", "/authorize/v2/models/echo/infer", headers={"Tidegate-Context": json.dumps(CONTEXT)})
    found = connection.getresponse()
    if found.status != 200:
        raise RuntimeError(f"the resolver refused: {found.read().decode()}")
    return [f"{name}: {value}" for name, value in found.getheaders() if name != "content-length"]


async def _serve(port: int, headers: Sequence[str]) -> None:
    answer = "\r\n".join(["HTTP/1.1 200 OK", *headers, "content-length: 0", "", ""]).encode()
    server = await asyncio.get_running_loop().create_server(lambda: Bare(answer), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2:]))
