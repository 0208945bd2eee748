"""What must hold whatever is sent: an answer or an end within seconds, no error of the gateway's own, nothing from inside."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from urllib.parse import urlsplit

from tests.fuzz.requests import CANARY
from tests.isolation.place import Place
from tests.support.processes import descriptors, resident_mib
from tests.support.stack import eventually
from tests.support.wire import Reply, Wire

HANG_S = 30.0
UNFINISHED_S = 0.4
"""After this long without an answer a request is taken for unfinished, and the caller stops sending."""

SHOWN_BYTES = 600
SETTLED = 10
"""After so many looks that see the same, nothing is being closed any more."""

INSIDE = re.compile(
    rb"Traceback|most recent call|File \"|\.py\b|[\" ']/(?:tmp|work|root|home|usr|opt|dev|proc)/|site-packages|triton_python_backend"
)
ERROR_LINES = ("Traceback", "unforeseen")


class Finding(AssertionError):
    """Something that must never happen, with the request that made it happen."""

    def __init__(self, what: str, request: bytes, reply: object = None) -> None:
        shown = request if len(request) <= SHOWN_BYTES else request[:SHOWN_BYTES] + b"... %d bytes" % len(request)
        super().__init__(f"{what}\nrequest: {shown!r}\nreply: {str(reply)[:SHOWN_BYTES]}")


class Watch:
    """Sends requests to a stack and judges the answers."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.statuses: Counter[int] = Counter()
        self.findings: list[Finding] = []
        self._lock = threading.Lock()
        ports = [str(urlsplit(each["url"]).port) for shard in place.stack.fleet().values() for each in shard]
        self._address = re.compile(rb"127\.0\.0\.1:(?:%s)\b" % "|".join(ports).encode())
        self._servers = place.server_pids()
        self._log_lines = len(place.stack.errors.splitlines())

    def send(self, request: bytes) -> None:
        """Send one request over a connection of its own.

        Raises:
            Finding: what happened must not.
        """
        try:
            with Wire(self.place.port, UNFINISHED_S) as wire:
                reply = self._answer(wire.send(request), request)
        except OSError as error:
            raise Finding(f"no connection: {error!r}", request) from None
        with self._lock:
            self.statuses[reply.status if reply is not None else 0] += 1
        if reply is not None:
            self.judge(request, reply)

    def tried(self, request: bytes) -> None:
        """Send one request, and keep a finding instead of raising it."""
        try:
            self.send(request)
        except Finding as finding:
            with self._lock:
                self.findings.append(finding)

    def judge(self, request: bytes, reply: Reply) -> None:
        """Judge one answer.

        Raises:
            Finding: it must not be given.
        """
        text = reply.body + str(reply.headers).encode()
        if reply.status == 500 and b"internal error" in text:
            raise Finding("an error of the gateway's own", request, reply)
        # Where a model is served is what `resolve` is asked for.
        if self._address.search(text) and b"/resolve" not in request:
            raise Finding("the address of a server", request, reply)
        if reply.status >= 400 and (found := INSIDE.search(text)) and found[0] not in request:
            raise Finding(f"{found[0]!r} from inside", request, reply)

    def check_place(self) -> list[str]:
        """What the requests did to the stack: servers that ended, logs that show context or errors."""
        problems = []
        if ended := self._servers - self.place.server_pids():
            problems.append(f"servers that ended: {len(ended)}")
        lines = self.place.stack.errors.splitlines()[self._log_lines :]
        problems += [f"context in the log: {line[:200]}" for line in lines if CANARY in line][:5]
        problems += [
            f"an error in the log: {line[:200]}" for line in lines if any(each in line for each in ERROR_LINES)
        ][:5]
        return problems

    def _answer(self, wire: Wire, request: bytes) -> Reply | None:
        method = request.partition(b" ")[0].decode("latin-1")
        try:
            try:
                reply = wire.reply(method)
            except TimeoutError:
                wire.socket.settimeout(HANG_S)
                wire.socket.shutdown(socket.SHUT_WR)
                reply = wire.reply(method)
            while reply is not None and 100 <= reply.status < 200:
                reply = wire.reply(method)
        except TimeoutError:
            raise Finding("no answer and no end", request) from None
        except ConnectionError:
            return None
        except (ValueError, IndexError) as error:
            raise Finding(f"an answer that is not HTTP: {error!r}", request) from None
        return reply


def resources(place: Place) -> tuple[float, int]:
    """Memory in MiB and open descriptors of the gateway, once what callers left behind is closed."""
    pid = place.gateway_pid
    counts = [descriptors(pid)]

    def settled() -> bool:
        counts.append(descriptors(pid))
        return len(counts) > SETTLED and len(set(counts[-SETTLED:])) == 1

    eventually(settled, 10)
    return resident_mib(pid), counts[-1]
