"""The options of a client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.errors import SettingsError


class Decide(StrEnum):
    """Where decisions are made."""

    BUNDLE = "bundle"
    """In this process, by the live bundle, which is polled."""

    RESOLVER = "resolver"
    """By a gateway or a resolver, which is asked; its decisions are kept for as long as it says."""


class Protocol(StrEnum):
    """How models are called."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The options of a client.

    Attributes:
        caller: the caller's name, where the gateway believes its header; sent with each request to it.
        headers: further headers of requests to the gateway, such as `Authorization`.
        decide: where decisions are made.
        protocol: how models are called.
        shards: addresses by shard: URLs, or for gRPC `host:port`, and `https://host:port` with TLS; or the path of a JSON file with such an
            object, which is read again when it changes. None: what the gateway says.
        proxy: the URL (for gRPC as in `shards`) of a proxy that sends each request to the shard in the header `Tidegate-Routing-Key`,
            in place of `shards`.
        cache_dir: a folder for the last good bundle, so that a process starts while the gateway is down; None: none is kept.
        poll_s: time between two polls of the bundle, while decisions are made (> 0).
        fresh_wait_s: longest time that a decision waits for a poll where the rules were not polled for longer than that, as after a pause.
        max_age_s: rules that were last known to be live longer ago are not used (>= 2 `poll_s`); None: the last good ones are, however old.
        stale_s: how long past its time a resolver's decision serves while the resolver does not answer.
        timeout_ms: deadline of a request where neither rule nor objective has one.
        connect_timeout_s: longest time to open a connection.
    """

    caller: str | None = None
    headers: Mapping[str, str] | None = None
    decide: Decide = Decide.BUNDLE
    protocol: Protocol = Protocol.HTTP
    shards: Mapping[str, Sequence[str]] | str | Path | None = None
    proxy: str | None = None
    cache_dir: str | Path | None = None
    poll_s: float = 2.0
    fresh_wait_s: float = 0.25
    max_age_s: float | None = None
    stale_s: float = 30.0
    timeout_ms: float = 10_000.0
    connect_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("poll_s", "timeout_ms", "connect_timeout_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("fresh_wait_s", "stale_s", "max_age_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise SettingsError(f"{name} must be at least 0, got {value}")
        if self.max_age_s is not None and self.max_age_s < 2 * self.poll_s:
            raise SettingsError(
                f"max_age_s must be at least twice poll_s ({self.poll_s:g}), got {self.max_age_s:g}: rules get older than poll_s between two polls"
            )
        for name, value in {"Tidegate-Caller": self.caller or "", **(self.headers or {})}.items():
            if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
                # It may be a secret.
                raise SettingsError(f"the value of the header {name!r} must be printable ASCII")
        if self.proxy is not None and self.shards is not None:
            raise SettingsError("shards and proxy exclude each other: a proxy knows where the shards are")
        # A text from a configuration is as good as the enum.
        for name, kind in (("decide", Decide), ("protocol", Protocol)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError:
                raise SettingsError(f"{name} must be {' or '.join(kind)}, got {getattr(self, name)!r}") from None
        if self.decide is Decide.RESOLVER and self.protocol is Protocol.GRPC and self.proxy is None is self.shards:
            raise SettingsError("a resolver names no addresses for gRPC: give shards or proxy, or protocol='http'")
        for address in self._addresses():
            check_address(address, self.protocol)

    def _addresses(self) -> Iterator[str]:
        if self.proxy is not None:
            yield self.proxy
        for shard, found in self.shards.items() if isinstance(self.shards, Mapping) else ():
            if isinstance(found, str):
                raise SettingsError(f"shards must have a list of addresses for {shard!r}, such as [{found!r}]")
            yield from found


def check_address(address: str, protocol: Protocol) -> None:
    """Check the address of a server.

    Raises:
        SettingsError: it is not a URL, or for gRPC neither `host:port` nor `https://host:port`.
    """
    if protocol is Protocol.GRPC:
        host, _, port = address.removeprefix("https://").rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise SettingsError(
                f"{address!r} is not an address for gRPC: write host:port, or https://host:port with TLS"
            )
    else:
        check_url(address)


def check_url(url: str) -> None:
    """Check the URL of a server. Raises `SettingsError`: it is none, or has a path."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SettingsError(
            f"{url!r} is not the URL of a server: write http://host:port or https://host:port, without a path"
        )
