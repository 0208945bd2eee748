"""`python -m tests.fuzz.gateway`: fuzz a local stack over raw sockets, and see what many requests leave behind.

It starts a stack of its own and prints one JSON document: how many requests got which answer, what was found, and the
gateway's memory and descriptors before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from tests.fuzz.generated import send_described, send_generated
from tests.fuzz.requests import good_requests, odd_request, smashed_request
from tests.fuzz.watch import Finding, Watch, resources
from tests.isolation.place import VARIABLES, Place, infer, write_models, write_rules
from tests.support.quiet_client import quiet_client
from tests.support.stack import running_stack
from tests.support.wire import Wire

THREADS = 6
OPERATIONS = 27
"""Of the OpenAPI documents, about: what Schemathesis makes is shared out between them."""

WARM_UP = 6_000
NO_LINGER = struct.pack("ii", 1, 0)


def fuzz(place: Place, count: int, seed: int) -> dict[str, Any]:
    """Send about `count` requests of every kind beside a quiet client; what came of it.

    Nine in ten are bytes and parts of our own making, since those are quick to make.
    """
    watch = Watch(place)
    described, generated = count // 20, count // 20
    with quiet_client(place.port, infer("quiet", (0.5,), "bystander")) as client:
        seeds = good_requests()
        sent = {"smashed": _spread(watch, count * 9 // 20, seed, lambda random: smashed_request(random, seeds))}
        sent["odd"] = _spread(watch, count * 9 // 20, seed + 1, odd_request)
        for name, send in (
            ("generated", lambda: send_generated(watch.send, generated, seed)),
            ("described", lambda: send_described(place, watch.send, max(2, described // OPERATIONS), seed)),
        ):
            try:
                sent[name] = send()
            except* Finding as found:
                watch.findings.extend(each for each in found.exceptions if isinstance(each, Finding))
        quiet = client.stop()
    statuses = {str(status or "closed"): number for status, number in sorted(watch.statuses.items())}
    problems = [str(each) for each in watch.findings] + watch.check_place()
    outcomes = dict(quiet.outcomes())
    if set(outcomes) != {"200 quiet"}:
        problems.append(f"the quiet client got {outcomes}")
    return {"sent": sent, "total": sum(sent.values()), "statuses": statuses, "problems": problems, "quiet": outcomes}


def _spread(watch: Watch, count: int, seed: int, make: Callable[[Random], bytes]) -> int:
    """Make and send requests on several threads; how many there were."""

    def work(number: int) -> None:
        random = Random(f"{seed} {number}")
        for _ in range(count // THREADS):
            watch.tried(make(random))

    _together([lambda number=number: work(number) for number in range(THREADS)])
    return count // THREADS * THREADS


def flatness(place: Place, mixed: int, aborted: int) -> dict[str, Any]:
    """What many requests, and many connections that callers cut off, leave behind in the gateway's process."""
    _mixed(place, min(mixed, WARM_UP))
    _aborted(place, min(aborted, WARM_UP // 10))
    before = resources(place)
    statuses = _mixed(place, mixed)
    between = resources(place)
    _aborted(place, aborted)
    after = resources(place)
    names = ("before", "after_mixed", "after_aborted")
    return {
        "mixed": mixed,
        "aborted": aborted,
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "memory_mib": dict(zip(names, (round(each[0], 1) for each in (before, between, after)), strict=True)),
        "descriptors": dict(zip(names, (each[1] for each in (before, between, after)), strict=True)),
    }


def _mixed(place: Place, count: int) -> Counter[int]:
    """Send good and refused requests in turn over kept connections; the statuses."""
    requests = [request for request in good_requests() if b"chunked" not in request]
    requests += [
        infer("nowhere"), infer("quiet", b"{"), infer("quiet", (0.5,), "nobody"), infer("quiet", [0.5] * 20_000),
        infer("quiet", b'{"inputs": []}'), infer("quiet", (0.5,), "attacker", ("Tidegate-Context", "{")),
    ]  # fmt: skip
    statuses: Counter[int] = Counter()

    def work(offset: int) -> None:
        own: Counter[int] = Counter()
        wire = Wire(place.port)
        for number in range(count // THREADS):
            reply = wire.send(requests[(number + offset) % len(requests)]).reply()
            own[reply.status if reply is not None else 0] += 1
            if reply is None or reply.headers.get("connection") == "close":
                wire.socket.close()
                wire = Wire(place.port)
        wire.socket.close()
        statuses.update(own)

    _together([lambda number=number: work(3 * number) for number in range(THREADS)])
    return statuses


def _aborted(place: Place, count: int) -> None:
    """Open connections and cut them off: before, within and after a request."""
    request = infer("quiet", [0.5] * 500)

    def work(offset: int) -> None:
        for number in range(offset, count, THREADS):
            wire = Wire(place.port)
            wire.send(request[: (0, 20, len(request) // 2, len(request))[number % 4]])
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            wire.socket.close()

    _together([lambda number=number: work(number) for number in range(THREADS)])


def _together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def own_place() -> Iterator[Place]:
    """A stack that nobody else uses."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rules, models = write_rules(root / "rules"), write_models(root / "models")
        with running_stack(rules, models, root / "errors", variables=VARIABLES) as stack:
            port = urlsplit(stack.url).port
            assert port is not None
            yield Place(stack, port)


def options() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000, help="fuzzed requests")
    parser.add_argument("--mixed", type=int, default=0, help="good and refused requests, to see what they leave behind")
    parser.add_argument("--aborted", type=int, default=0, help="connections that are cut off")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> int:
    """Run what the options say; 1 where something was found."""
    chosen = options().parse_args()
    with own_place() as place:
        result: dict[str, Any] = {"fuzz": fuzz(place, chosen.requests, chosen.seed)} if chosen.requests else {}
        if chosen.mixed or chosen.aborted:
            place.wait_whole()
            result["flatness"] = flatness(place, chosen.mixed, chosen.aborted)
    print(json.dumps(result, indent=1))
    return 1 if result.get("fuzz", {}).get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())
