"""Names of shards where only lower-case letters, digits and hyphens are allowed: DNS, load balancers, logical ids.

Both the infrastructure and the gateway derive a shard's address from its name.
"""

from __future__ import annotations

import hashlib
import re

MAX_LABEL = 24
"""Longest label: a readable part and the 9 characters of a digest."""

_PLAIN = re.compile(r"^[a-z]([a-z0-9-]*[a-z0-9])?$")


def label_of(name: str) -> str:
    """Return the name if it is a valid label, else a readable part of it and its digest.

    It depends on no other shard, so that none is rebuilt when another is added or removed.
    """
    if _PLAIN.match(name) and len(name) <= MAX_LABEL and "--" not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not readable[:1].isalpha():
        readable = f"s{readable}"
    return f"{readable[: MAX_LABEL - 9].strip('-')}-{digest}"
