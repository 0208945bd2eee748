"""What both clients have: the parts, and the choice between them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from tidegate.client.calling import Caller, Inference
from tidegate.client.config import ClientConfig, Decide, check_url
from tidegate.client.exchange import Ask, Reply
from tidegate.client.resolver import Resolution, Resolver
from tidegate.client.rules import LiveRules, Places, ShardFile, check_grant
from tidegate.rules import Engine
from tidegate.rules.contract import Traffic
from tidegate.rules.decision import Decision


class ClientBase:
    """A client without I/O.

    Args:
        url: the gateway, or a resolver: `http://host:port`.
        config: the options; `options` are single ones by name in its place.

    Raises:
        SettingsError: an option is not usable.
    """

    def __init__(self, url: str, config: ClientConfig | None = None, **options: Any) -> None:
        check_url(url)
        self.config = ClientConfig(**options) if config is None else config
        self._rules = LiveRules(url.rstrip("/"), self.config)
        self._resolver = Resolver(url.rstrip("/"), self.config)
        self._caller = Caller(self.config)
        self._decides = self.config.decide is Decide.BUNDLE
        self._shard_file: ShardFile | None = None
        if isinstance(self.config.shards, str | Path):
            self._shard_file = ShardFile(Path(self.config.shards), self.config.protocol)

    @property
    def revision(self) -> str | None:
        """The revision of the rules that this process decides by; None before the first ones, and where a resolver decides."""
        return None if self._rules.engine is None else self._rules.engine.revision

    @property
    def rules_age_s(self) -> float | None:
        """Seconds since those rules were last known to be live; None before the first ones."""
        return self._rules.age_s

    def _decided(self, engine: Engine, objective: str, context: Mapping[str, Any]) -> Decision:
        if engine.callers is not None:
            check_grant(engine, self.config.caller, objective)
        return engine.decide(objective, context)

    def _places(self, found: Places) -> Places:
        if self._shard_file is not None:
            return self._shard_file.places()
        return self.config.shards if isinstance(self.config.shards, Mapping) else found

    def _calling(
        self, resolution: Resolution, inputs: Mapping[str, Any], timeout_ms: float | None, began_s: float
    ) -> Generator[Ask, Reply, Inference]:
        engine, name = self._rules.engine, self.config.caller
        known = None if engine is None or engine.callers is None or name is None else engine.callers.get(name)
        # A resolver's answer does not say the class of the caller.
        traffic = None if engine is None else Traffic.REAL if known is None else known.traffic
        places = self._places(resolution.places)
        own = None if known is None else name
        return self._caller.call(resolution.decision, places, inputs, timeout_ms, began_s, traffic, own)
