"""The client for threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tidegate.client.base import ClientBase
from tidegate.client.calling import Inference
from tidegate.client.config import ClientConfig
from tidegate.client.connections import Connections
from tidegate.client.exchange import Ask, Reply, Request, run
from tidegate.client.resolver import Resolution, is_newer
from tidegate.client.rpc import RpcChannels
from tidegate.errors import TidegateError, UnavailableError
from tidegate.rules import Engine
from tidegate.rules.decision import Decision


class Client(ClientBase):
    """Decides and infers, from any number of threads. Make one for a process, and close it at its end; see `ClientConfig` for the
    options.

    No thread runs while nothing is decided: a decision that finds a poll due starts a thread for that poll alone.
    """

    def __init__(self, url: str, config: ClientConfig | None = None, **options: Any) -> None:
        super().__init__(url, config, **options)
        self._connections = Connections(self.config.connect_timeout_s)
        self._channels = RpcChannels()
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._owner = os.getpid()
        self._polling: threading.Thread | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()
        self._channels.close()

    def decide(self, objective: str, context: Mapping[str, Any] | None = None) -> Decision:
        """Return the decision for a context: the one of the gateway.

        Raises:
            ContextError: an attribute is missing, of the wrong type or outside its domain.
            NoRuleError: no rule matches.
            RefusedError: the caller may not use the objective, or not read the rules.
            StoreError: there are no rules that may be used.
            UnavailableError: the resolver does not answer.
            UnknownObjectiveError: there is no such objective.
        """
        if self._decides:
            rules = self._rules
            # Hot path: a decision of the engine, and nothing else.
            if time.monotonic() < rules.next_poll_s and rules.decide is not None:
                return rules.decide(objective, context or {})
            return self._decided(self._engine(), objective, context or {})
        return self._resolved(objective, context or {}).decision

    def infer(
        self,
        objective: str,
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        *,
        timeout_ms: float | None = None,
    ) -> Inference:
        """Decide, and call the model: its places, and then those of the fallbacks.

        Args:
            objective: the objective's name.
            inputs: by name, nested lists or arrays of numpy.
            context: the attributes that rules look at.
            timeout_ms: how long it may take; the rule's time counts, too, if that is shorter.

        Raises:
            DeadlineError: no server answered in time.
            ModelRefusedError: the model answered with an error.
            RefusedError: an input does not fit the model; or as `decide`.
            UnavailableError: no server answered.
            TidegateError: as `decide`.
        """
        began_s = time.monotonic()
        resolution = self._resolution(objective, context or {})
        try:
            return run(self._calling(resolution, inputs, timeout_ms, began_s), self._send)
        except UnavailableError:
            newer = self._newer(resolution, objective, context or {})
            if newer is None:
                raise
            return run(self._calling(newer, inputs, timeout_ms, began_s), self._send)

    def _newer(self, old: Resolution, objective: str, context: Mapping[str, Any]) -> Resolution | None:
        """Return the decision of newer rules; None if the old ones are live still. No server has what old rules name once a publish
        has unloaded it."""
        if not self._decides:
            return self._renewed(old, objective, context)
        self._unlock_in_child()
        with self._lock:
            self._rules.hurry()
        self._poll(waits=True)
        newer = self._resolution(objective, context)
        return newer if is_newer(newer, old) else None

    def _renewed(self, old: Resolution, objective: str, context: Mapping[str, Any]) -> Resolution | None:
        self._unlock_in_child()
        # Others that fail meanwhile wait for this one question.
        if not self._renewing.acquire(timeout=self.config.fresh_wait_s):
            return None
        try:
            if self._resolver.may_hurry():
                run(self._resolver.ask(objective, context), self._send)
        except TidegateError:
            return None
        finally:
            self._renewing.release()
        return run(self._resolver.renewed(old, objective, context), self._send)

    def _resolution(self, objective: str, context: Mapping[str, Any]) -> Resolution:
        if not self._decides:
            return self._resolved(objective, context)
        return Resolution(self._decided(self._engine(), objective, context), self._rules.places)

    def _resolved(self, objective: str, context: Mapping[str, Any]) -> Resolution:
        kept = self._resolver.find(objective, context)
        return run(self._resolver.ask(objective, context), self._send) if kept is None else kept

    def _engine(self) -> Engine:
        rules = self._rules
        if time.monotonic() >= rules.next_poll_s:
            self._poll()
        return rules.usable()

    def _poll(self, *, waits: bool = False) -> None:
        """See to it that a poll runs, and wait for it where there are no rules, and for a moment where they are late or if it `waits`."""
        rules = self._rules
        self._unlock_in_child()
        with self._lock:
            rules.load()
            # A thread of the parent process does not live in a child.
            thread = self._polling
            if thread is None or not thread.is_alive():
                if time.monotonic() < rules.next_poll_s:
                    return
                thread = self._polling = threading.Thread(target=self._polled, name="tidegate-poll", daemon=True)
                thread.start()
        if rules.engine is None:
            thread.join()
        elif rules.is_late or waits:
            thread.join(self.config.fresh_wait_s)

    def _unlock_in_child(self) -> None:
        # A lock that a thread of the parent process held at the fork stays locked in the child.
        if self._owner != os.getpid():
            self._lock, self._renewing, self._owner = threading.Lock(), threading.Lock(), os.getpid()

    def _polled(self) -> None:
        run(self._rules.poll(), self._send)

    def _send(self, ask: Ask) -> Reply:
        return self._connections.send(ask) if isinstance(ask, Request) else self._channels.send(ask)
