"""Where facts are and how they are read: the configuration of `facts.py`, and its client."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = 4
CONNECT_SHARE = 0.4
"""The share of the time-out that opening a connection may take."""


class FactsError(Exception):
    """Facts cannot be read at all as this process is configured; the message says what to do."""


@dataclass(frozen=True)
class FactsConfig:
    """Where facts are, and how they are read.

    Attributes:
        name: the name of the set of facts.
        table: the DynamoDB table.
        endpoint_url: the address of DynamoDB; None is AWS's own.
        region: the AWS region; None leaves it to AWS's own configuration.
        timeout_ms: the most that the look-ups of one batch of requests may take.
        cache_ttl_s: how long a fact that was read, or found missing, is not read again.
        cache_size: the most facts that are kept.
    """

    name: str
    table: str
    endpoint_url: str | None = None
    region: str | None = None
    timeout_ms: float = 50
    cache_ttl_s: float = 60
    cache_size: int = 10_000

    @classmethod
    def read(cls, parameters: Mapping[str, str], environment: Mapping[str, str]) -> FactsConfig:
        """The configuration: a model's parameters, else variables of the server's process, else what is usual.

        Raises:
            FactsError: no table is named, or a value is malformed; the message names it.
        """
        table = parameters.get("facts_table") or environment.get("TIDEGATE_FACTS_TABLE")
        if not table:
            raise FactsError("no table is named: set TIDEGATE_FACTS_TABLE, or the parameter facts_table")
        region = (
            parameters.get("facts_region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        )
        timeout_ms = parameters.get("facts_timeout_ms") or environment.get("TIDEGATE_FACTS_TIMEOUT_MS")
        return cls(
            parameters.get("facts") or "facts",
            table,
            parameters.get("facts_endpoint_url") or environment.get("TIDEGATE_AWS_ENDPOINT_URL") or None,
            region or None,
            _number("facts_timeout_ms", timeout_ms, cls.timeout_ms, 1, 60_000),
            _number("facts_cache_ttl_s", parameters.get("facts_cache_ttl_s"), cls.cache_ttl_s, 0, 86_400),
            int(_number("facts_cache_size", parameters.get("facts_cache_size"), cls.cache_size, 0, 100_000_000)),
        )


def dynamodb(config: FactsConfig, timeout_ms: float | None = None) -> Any:
    """A boto3 client that tries once, and waits no longer than `timeout_ms`, or the time-out of the configuration.

    Raises:
        FactsError: boto3 is not installed, or cannot make a client of this configuration.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise FactsError(
            f"boto3 cannot be imported where Triton's Python models run ({error}): pip install boto3"
        ) from error
    timeout_s = (config.timeout_ms if timeout_ms is None else timeout_ms) / 1000
    options: dict[str, Any] = {}
    if _is_local(config.endpoint_url):
        # Whatever proxy the environment names is not meant for this machine.
        options["proxies"] = {}
    try:
        return boto3.client(
            "dynamodb",
            endpoint_url=config.endpoint_url,
            region_name=config.region,
            config=Config(
                connect_timeout=timeout_s * CONNECT_SHARE,
                read_timeout=timeout_s,
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=CONNECTIONS,
                tcp_keepalive=True,
                **options,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise FactsError(f"no client of DynamoDB can be made: {error}") from error


def _is_local(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _number(name: str, text: str | None, usual: float, low: float, high: float) -> float:
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise FactsError(f"{name} must be a number from {low:g} to {high:g}, not {text!r:.40}")
    return value
