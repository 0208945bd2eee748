"""Failed attempts: what may follow each, and what the caller gets where nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tidegate.dispatch.call import Outcome
from tidegate.errors import DeadlineError, OverloadedError, UnavailableError


class Next(Enum):
    """What a failed attempt lets follow.

    `FREE`: another attempt, since no model has worked on the request. `RATIONED`: one if a retry is in the budget, since a
    model may have. `ONE_MORE`: the same, and once only, since the request may be what ended the server. `STOP`: none.
    """

    FREE = 1
    RATIONED = 2
    ONE_MORE = 3
    STOP = 4


class Kind(Enum):
    """What a failure says to the caller, where nothing else answers."""

    UNAVAILABLE = 1
    LATE = 2
    BUSY = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. `outcome` is an answer that is passed on where no other attempt succeeds; `repeat`: the connection
    and not the endpoint may have been at fault; `ended`: the server, or the model's process, ended while it had the request."""

    text: str
    next: Next
    kind: Kind = Kind.UNAVAILABLE
    outcome: Outcome | None = None
    repeat: bool = False
    ended: bool = False


def result(failures: Sequence[Failure]) -> Outcome:
    """The answer that is passed on where no attempt succeeded.

    Raises:
        DeadlineError: the last attempt was late.
        OverloadedError: a target has no room.
        UnavailableError: no target answered.
    """
    texts = tuple(failure.text for failure in failures if failure.text)
    for failure in reversed(failures):
        if failure.outcome is not None:
            return failure.outcome
    kind = failures[-1].kind
    if kind is Kind.LATE:
        raise DeadlineError("no target answered before the deadline", texts)
    if any(failure.kind is Kind.BUSY for failure in failures):
        raise OverloadedError("no target takes more requests now", texts)
    raise UnavailableError("every target failed", texts)
