"""Why a request that a shadow sampled has no answer of it, as it is counted.

Counts are flat, so that processes can add each other's: `sampled`, `left out: <LeftOut>`, `dropped: <Drop>`, `tried` and `queued`
(of a queue), `sent`, `answered`, `failed: <NoAnswer>` or `failed: status <number>`, and `not compared`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class LeftOut(StrEnum):
    """Why a sampled request is never copied, whatever the load."""

    PINNED = "pinned"
    """The caller chose the target."""

    SEQUENCE = "sequence"
    """The shadow does not have the state of the sequence."""

    STREAMED = "streamed"
    """The gateway did not hold the whole body, or the answer is a stream."""

    GRPC = "grpc"
    """It came over gRPC, and copies go through a queue, whose function speaks HTTP."""

    CLASSES = "classes"
    """It asks for classes, for which every model has to be checked first."""

    NO_ANSWER = "no answer"
    """No target answered the primary."""


class Drop(StrEnum):
    """Why a copy was not sent, under pressure."""

    NO_ENDPOINT = "no endpoint"
    """No endpoint of the shadow is known."""

    OVERLOADED = "overloaded"
    """Requests wait at each endpoint of the shadow, or it gets none now."""

    MEMORY = "memory"
    """Copies hold as many bytes as they may."""

    QUEUE_FULL = "queue full"
    """Too many copies wait for the same shadow."""

    LATE = "late"
    """It waited for as long as it may."""

    FAILING = "failing"
    """The shadow failed several times in a row."""

    LOST = "lost"
    """The process that carries copies out ended."""

    UNREACHABLE = "unreachable"
    """The queue did not take it."""


def left_out(reason: LeftOut) -> str:
    return f"left out: {reason}"


def dropped(reason: Drop) -> str:
    return f"dropped: {reason}"


def nested(counts: Mapping[str, int]) -> dict[str, int | dict[str, int]]:
    """Return counts as plain JSON values: those with a reason together, such as `{"dropped": {"late": 2}}`."""
    shown: dict[str, int | dict[str, int]] = {"sampled": 0, "sent": 0, "answered": 0}
    shown |= {"left_out": {}, "dropped": {}, "failed": {}}
    for name, count in sorted(counts.items()):
        kind, _, reason = name.partition(": ")
        within = shown.setdefault(kind.replace(" ", "_"), {} if reason else count)
        if isinstance(within, dict):
            within[reason] = count
        else:
            shown[kind.replace(" ", "_")] = count
    return shown
