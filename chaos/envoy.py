"""Envoy beside the stack, as `tidegate envoy run` runs it, and its harms: all under one load of mixed callers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tidegate.rules import compile_directory, load_bundle
from tritonclient.grpc.service_pb2 import ModelInferRequest

from chaos.place import FALLBACK, REPLICAS, Place, request, write_rules
from chaos.scenarios import LASTS_S, Scenario, kill_store, stop_store, stopped
from tests.support.processes import listener_pid
from tests.support.quiet_client import QuietClient, quiet_client
from tests.support.running_command import Command, envoy_beside, resolvers_of
from tests.support.stack import eventually
from tests.support.wire import Reply, ask

WORKERS = 2
PER_S = {"kept": 400, "new": 150, "rpc": 100}
"""Requests per second over HTTP/1.1 on kept connections, on a connection of each's own, and over gRPC."""

CONNECTIONS = 32
CHANGES = 50
RESOLVERS_KILLED = 10
CHANGED_EVERY_S, KILLED_EVERY_S = 3.0, 10.0
STATE = "envoy"


@dataclass(frozen=True, slots=True)
class EnvoyPlace(Place):
    """The stack with Envoy beside it, as what its callers ask."""

    envoy: Command
    envoy_port: int

    @property
    def port(self) -> int:
        """Envoy's port."""
        return self.envoy_port

    @contextmanager
    def callers(self) -> Iterator[Sequence[QuietClient]]:
        with ExitStack() as running:
            yield [
                running.enter_context(quiet_client(self.port, each, per_s=PER_S[kind], connections=CONNECTIONS, **how))
                for kind, each, how in (
                    ("kept", request(), {}),
                    ("new", request(), {"is_kept": False}),
                    ("rpc", _message(), {"metadata": {"tidegate-objective": "chaos", "tidegate-context": "{}"}}),
                )
            ]

    def resolvers(self) -> list[int]:
        """Return the processes that decide."""
        return resolvers_of(self.root / STATE)

    def wait_resolvers(self, but: int = 0) -> float:
        """Wait until all resolvers run, one process not counted. Return when."""
        assert eventually(lambda: len({*self.resolvers()} - {but}) == WORKERS, most_s=0.1), self.envoy.errors
        return time.monotonic()

    def reply(self) -> Reply | None:
        """Ask once; None without an answer."""
        try:
            return ask(self.port, request())
        except OSError:
            return None

    def publish(self, **rules: Any) -> None:
        """Publish other rules, and wait until Envoy answers by them."""
        folder = write_rules(self.root / "rules", **rules)
        wanted = load_bundle(compile_directory(folder)).rules

        def is_served() -> bool:
            reply = self.reply()
            return reply is not None and reply.headers.get("tidegate-revision") == wanted

        assert eventually(is_served, most_s=0.1), self.envoy.errors


def _message() -> bytes:
    tensor = ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(0.5)
    message: bytes = ModelInferRequest(model_name="chaos", inputs=[tensor]).SerializeToString()
    return message


def _variation(number: int) -> dict[str, Any]:
    """Return the rules of a change: each has other clusters and other routes than the one before."""
    with_c = CHANGES * 2 // 5 <= number < CHANGES * 3 // 5
    worker = [["c"], ["c", "a"], ["b", "c"]] if with_c else [["a"], ["a", "b"], ["b"], ["b", "a"]]
    return {
        "top_k": number + 1 + int(time.time()),
        "shards": {**REPLICAS, **({"c": 1} if with_c else {})},
        "worker": worker[number % len(worker)],
        "spare": (["b"], ["a"], ["a", "b"])[number % 3],
        "fallback": [FALLBACK] * (number % 2),
        **({"degraded": FALLBACK} if number % 5 < 2 else {}),
    }


def _change(place: EnvoyPlace) -> float:
    """Change the rules again and again while resolvers are killed, and in the end to those of before."""
    with ThreadPoolExecutor(1) as beside:
        killing = beside.submit(_kill_resolvers, place)
        for number in range(CHANGES):
            due_s = time.monotonic() + CHANGED_EVERY_S
            place.publish(**_variation(number))
            time.sleep(max(0.0, due_s - time.monotonic()))
        killing.result()
    return _restore(place)


def _kill_resolvers(place: EnvoyPlace) -> None:
    for number in range(RESOLVERS_KILLED):
        time.sleep(KILLED_EVERY_S)
        killed = place.resolvers()[number % WORKERS]
        os.kill(killed, signal.SIGKILL)
        place.wait_resolvers(but=killed)


def _restore(place: EnvoyPlace) -> float:
    place.publish(top_k=int(time.time()))
    return place.wait_ready()


def _stop_resolver(place: EnvoyPlace) -> float:
    """Stop one and change the rules, so that it decides by those before when it goes on, and change them again at once."""
    with stopped(place, place.resolvers()[:1]):
        write_rules(place.root / "rules", **_variation(1))
        time.sleep(LASTS_S)
    return _restore(place)


def _hang_resolver(place: EnvoyPlace) -> float:
    hung = place.resolvers()[0]
    os.kill(hung, signal.SIGSTOP)
    place.publish(**_variation(1))
    place.wait_resolvers(but=hung)
    return _restore(place)


def _kill_endpoint(place: EnvoyPlace) -> float:
    killed = place.servers("a")[:1]
    place.signal(killed, signal.SIGKILL)
    return place.wait_ready(but=frozenset(killed))


def _kill_envoy(place: EnvoyPlace) -> float:
    killed = listener_pid(place.port)
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: place.reply() is not None, most_s=0.05), place.envoy.errors
    return time.monotonic()


_CHANGES = (
    f"{CHANGES} revisions published, each with other clusters and routes; a shard added and removed meanwhile; "
    f"SIGKILL of a resolver {RESOLVERS_KILLED} times"
)
ASKING_SCENARIOS: dict[str, Scenario[EnvoyPlace]] = {
    "envoy-changes": Scenario(_CHANGES, _change),
    "envoy-resolver-paused": Scenario(
        "SIGSTOP of one of two resolvers for five seconds, while the rules change", _stop_resolver
    ),
    "envoy-resolver-hung": Scenario("SIGSTOP of one of them for good, while the rules change", _hang_resolver),
}
"""Where Envoy asks a resolver about every request (`--no-in-process`)."""

ENVOY_SCENARIOS: dict[str, Scenario[EnvoyPlace]] = {
    "envoy-in-process-changes": Scenario(f"{_CHANGES}; Envoy decides in its own process", _change),
    "envoy-endpoint-killed": Scenario(
        "SIGKILL of one of the target's two servers, which another replaces", _kill_endpoint, cuts_off=True
    ),
    "envoy-store-hung": Scenario("SIGSTOP of S3 and DynamoDB", stop_store),
    "envoy-store-killed": Scenario("SIGKILL of S3 and DynamoDB, which lose everything", kill_store),
    "envoy-killed": Scenario("SIGKILL of Envoy itself, which another replaces", _kill_envoy, cuts_off=True),
}


@contextmanager
def running_envoy(place: Place, *options: str) -> Iterator[EnvoyPlace]:
    """Run Envoy beside a stack for as long as the block lasts."""
    variables = {"TIDEGATE_RESOLVER_TIMEOUT_MS": "500", "TIDEGATE_CONNECT_TIMEOUT_MS": "1000"}
    with envoy_beside(place.stack.url, place.root / STATE, variables, WORKERS, options) as (envoy, port):
        yield EnvoyPlace(place.stack, place.root, envoy, port)
