"""Scripted endpoints for a dispatcher, and a clock that only tests advance."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from tidegate.errors import EndpointTimeoutError
from tidegate.gateway import Call, DispatchConfig, Dispatcher, Outcome
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse, Suspect
from tidegate.rules.decision import Decision, Target
from tidegate.testing import MemoryEndpointDirectory

A1, A2 = Endpoint("a", "a1", 8000), Endpoint("a", "a2", 8000)
B1, C1 = Endpoint("b", "b1", 8000), Endpoint("c", "c1", 8000)
MAIN = Target("ranker@champion", "ranker", 3, ("a", "b"))
BACKUP = Target("popular", "popular", None, ("c",))
INFER = Call("POST", "/infer", (), b"{}")

Answer = HttpResponse | Exception | tuple[float, HttpResponse]


def decide(*fallbacks: Target, target: Target = MAIN, timeout_ms: int | None = None) -> Decision:
    return Decision(
        "ranking", "default", target, "serve", "r1", parameters={}, fallbacks=fallbacks, timeout_ms=timeout_ms
    )


def answer(status: int, text: str | None = None) -> HttpResponse:
    body = b"ok" if text is None else b'{"error":"%b"}' % text.encode()
    return HttpResponse(status, [], body)


OK = answer(200)


@dataclass
class World:
    """Endpoints that answer as scripted (`OK` by default), and the time."""

    answers: dict[str, list[Answer] | Answer] = field(default_factory=dict)
    now_s: float = 1000.0
    sent: list[tuple[str, str]] = field(default_factory=list)
    limits_ms: list[float] = field(default_factory=list)
    unhealthy: set[str] = field(default_factory=set)
    probes: list[tuple[str, str]] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    directory: MemoryEndpointDirectory = field(
        default_factory=lambda: MemoryEndpointDirectory({"a": (A1, A2), "b": (B1,), "c": (C1,)})
    )

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        if request.apart:
            return await self.probe(endpoint, request)
        began_s = self.now_s
        try:
            response = self.answer(endpoint, request, timeout_s)
        except BaseException:
            if done is not None:
                done(None)
            raise
        if done is not None:
            done(self.now_s - began_s if response.status < 400 else None)
        return response

    async def probe(self, endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        self.probes.append((endpoint.host, request.path))
        await asyncio.sleep(0)
        if endpoint.host in self.unhealthy:
            raise EndpointTimeoutError("late")
        return OK

    def hang_up(self, endpoint: Endpoint) -> None:
        self.hung_up.append(endpoint.host)

    def answer(self, endpoint: Endpoint, request: HttpRequest, timeout_s: float) -> HttpResponse:
        self.sent.append((endpoint.host, request.path))
        self.limits_ms.append(round(timeout_s * 1000, 3))
        scripted = self.answers.get(endpoint.host, OK)
        if isinstance(scripted, list):
            scripted = scripted.pop(0) if scripted else OK
        if isinstance(scripted, tuple) and not isinstance(scripted, HttpResponse):
            latency_s, scripted = scripted
            self.now_s += min(latency_s, timeout_s)
            if latency_s > timeout_s:
                raise EndpointTimeoutError("late")
        if isinstance(scripted, EndpointTimeoutError):
            self.now_s += timeout_s
        if isinstance(scripted, Exception):
            raise scripted
        return scripted

    def dispatcher(self, **config: float) -> Dispatcher:
        return Dispatcher(
            self,
            self.directory,
            DispatchConfig(**config),  # type: ignore[arg-type]
            clock=lambda: self.now_s,
            suspects=self.suspects.append,
            chance=random.Random(0).random,
        )

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.sent]


def run(dispatcher: Dispatcher, decision: Decision, call: Call = INFER, caller_ms: float | None = None) -> Outcome:
    return asyncio.run(dispatcher.dispatch(decision, call, dispatcher.deadline_s(decision, caller_ms)))


def only_b(timeout_ms: int | None = None) -> Decision:
    return decide(BACKUP, target=Target("ranker", "ranker", None, ("b",)), timeout_ms=timeout_ms)
