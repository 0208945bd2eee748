"""An OpenTelemetry collector in this process: takes spans over OTLP/HTTP, as protobuf (from the SDK) or as JSON (from Triton)."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.stack import eventually

KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it was exported, ids in hexadecimal digits; `parent` is empty for the root of a trace."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.attributes.get(name)


@dataclass(slots=True)
class Collector:
    """What has come so far: spans, and the headers of each request. `status` is what it answers."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    _server: ThreadingHTTPServer = field(init=False)

    def variables(self, **more: str) -> dict[str, str]:
        """The variables of a stack that exports here, at once."""
        return {
            "TIDEGATE_TRACING": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            **more,
        }

    def trace(self, trace: str) -> list[Span]:
        return [each for each in self.spans if each.trace == trace]

    def wait(self, trace: str, *shown: str) -> list[Span]:
        """The spans of a trace, once those are among them that `outline` shows so."""
        spans = eventually(lambda: self.whole(trace, *shown))
        assert spans, "\n".join(outline(self.trace(trace)))
        return list(spans)

    def whole(self, trace: str, *shown: str) -> list[Span]:
        """The spans of a trace, if those are among them that `outline` shows so; else none."""
        spans = self.trace(trace)
        return spans if set(shown) <= {line.strip() for line in outline(spans)} else []

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections for a while."""
        self._end()
        try:
            yield
        finally:
            self._begin(int(self.url.rpartition(":")[2]))

    def _begin(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def _end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def outline(spans: list[Span]) -> list[str]:
    """A trace as a tree, in the order of time: each span by its name, and what it tried."""

    def children(parent: str, indent: str) -> Iterator[str]:
        for each in sorted((each for each in spans if each.parent == parent), key=lambda each: each.began_ns):
            tried = "" if each["tidegate.attempt"] is None else f" [{each['tidegate.attempt']}]"
            yield f"{indent}{each.name}{tried}{' failed' if each.failed else ''}"
            yield from children(each.id, f"{indent}  ")

    known = {each.id for each in spans}
    return [
        line
        for root in dict.fromkeys(each.parent for each in spans if each.parent not in known)
        for line in children(root, "")
    ]


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    found = Collector()
    found._begin(0)
    try:
        yield found
    finally:
        found._end()


def _handler(found: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            assert self.path == "/v1/traces"
            if found.status == 200:
                found.spans += _spans(data, self.headers["Content-Type"])
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            # A connection that is kept would outlive `down`.
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _spans(data: bytes, kind: str) -> list[Span]:
    if kind == "application/json":
        document = json.loads(data)
    else:
        document = MessageToDict(ExportTraceServiceRequest.FromString(data), use_integers_for_enums=True)
    spans = []
    for group in document["resourceSpans"]:
        service = _attributes(group["resource"])["service.name"]
        for each in (each for scope in group["scopeSpans"] for each in scope["spans"]):
            spans.append(
                Span(
                    service=service,
                    name=each["name"],
                    kind=KINDS[each["kind"]],
                    trace=_hex(each["traceId"], 32),
                    id=_hex(each["spanId"], 16),
                    parent=_hex(each.get("parentSpanId", ""), 16),
                    state=each.get("traceState", ""),
                    began_ns=int(each["startTimeUnixNano"]),
                    ended_ns=int(each["endTimeUnixNano"]),
                    failed=each.get("status", {}).get("code") == 2,
                    attributes=_attributes(each),
                )
            )
    return spans


def _hex(text: str, digits: int) -> str:
    """An id in hexadecimal digits, which JSON of OTLP has, and JSON of protobuf as base64."""
    return text if len(text) in (0, digits) else base64.b64decode(text).hex()


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for each in holder.get("attributes", ()):
        ((kind, value),) = each["value"].items()
        found[each["key"]] = int(value) if kind == "intValue" else value
    return found
