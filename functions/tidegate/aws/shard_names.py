"""How shards are named where only lower-case letters, digits and hyphens may stand: DNS, load balancers, logical ids.

Both the infrastructure and the gateway know a shard's name alone, and so meet at the same address.
"""

from __future__ import annotations

import hashlib
import re

MAX_LABEL = 24
"""Longest label; a readable part and the 9 characters of a digest fit in."""

_PLAIN = re.compile(r"^[a-z]([a-z0-9-]*[a-z0-9])?$")


def label_of(name: str) -> str:
    """The label of a shard: its name where that is one already, else a readable part and a digest of the name.

    It depends on the name alone, so that no shard is rebuilt because another comes or goes.
    """
    if _PLAIN.match(name) and len(name) <= MAX_LABEL and "--" not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not readable[:1].isalpha():
        readable = f"s{readable}"
    return f"{readable[: MAX_LABEL - 9].strip('-')}-{digest}"
