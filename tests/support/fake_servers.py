"""Servers that speak enough of Triton's HTTP to be reconciled, and servers that answer oddly."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATS = "/v2/models/stats"
PAUSE_S = 0.02
DEEP = b"[" * 100_000

ODD_STATS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<html>It works!</html>",
    "no text": b"\xff\xfe\x00\x01",
    "no object": b"[]",
    "null": b"null",
    "another object": b"{}",
    "null for a list": b'{"model_stats": null}',
    "an object for a list": b'{"model_stats": {"name": "popular"}}',
    "entries that are no objects": b'{"model_stats": [1, "popular", null]}',
    "an entry without a name": b'{"model_stats": [{"version": "1"}]}',
    "an entry without a version": b'{"model_stats": [{"name": "popular"}]}',
    "a number for a version": b'{"model_stats": [{"name": "popular", "version": 1}]}',
    "a version that is none": b'{"model_stats": [{"name": "popular", "version": "latest"}]}',
    "a fraction for a version": b'{"model_stats": [{"name": "popular", "version": "1.5"}]}',
    "a version without an end": b'{"model_stats": [{"name": "popular", "version": "%s"}]}' % (b"9" * 10_000),
    "a list for a name": b'{"model_stats": [{"name": ["popular"], "version": "1"}]}',
    "nested without an end": DEEP,
    "cut off": b'{"model_stats": [{"name": "popu',
}
"""Bodies with status 200 that are no statistics of models, by what is wrong with them."""


@dataclass(slots=True)
class FakeServer:
    """A server: what it has loaded, what it was asked (path, headers), and the body that it gives for statistics in place
    of the right one. `infer` is what it answers to inferences; where it `hangs`, no load ends, and while it is `stopped` it
    answers nothing."""

    host: str
    port: int = 0
    loaded: dict[str, set[str]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stats: tuple[int, bytes] | None = None
    metrics: bytes = b""
    infer: bytes = b""
    hangs: bool = False
    stopped: bool = False

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body for a request."""
        if path == STATS:
            if self.stats is not None:
                return self.stats
            entries = [{"name": name, "version": each} for name, found in self.loaded.items() for each in sorted(found)]
            return 200, json.dumps({"model_stats": entries}).encode()
        if path == "/metrics":
            return 200, self.metrics
        parts = path.split("/")
        if parts[-1] == "infer":
            return 200, self.infer
        if parts[2:4] == ["repository", "models"] and parts[-1] == "load":
            while self.hangs:
                time.sleep(PAUSE_S)
            config = json.loads(json.loads(body)["parameters"]["config"])
            self.loaded[parts[4]] = {str(each) for each in config["version_policy"]["specific"]["versions"]}
            return 200, b""
        if parts[2:4] == ["repository", "models"] and parts[-1] == "unload":
            self.loaded.pop(parts[4], None)
            return 200, b""
        return 200 if parts[-1] in ("ready", "live") else 404, b""


@contextlib.contextmanager
def fake_server(host: str = "127.0.0.1") -> Iterator[FakeServer]:
    """A running fake server."""
    fake = FakeServer(host)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            while fake.stopped:
                time.sleep(PAUSE_S)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            status, answer = fake.answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

        do_GET = do_POST = _any

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer((host, 0), Handler) as server:
        server.daemon_threads = True
        fake.port = server.server_port
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield fake
        finally:
            fake.hangs = fake.stopped = False  # or the threads of what it has not answered would stay
            server.shutdown()
