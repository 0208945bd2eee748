"""Failed attempts: what may follow each one, and what the caller gets when all have failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tidegate.errors import DeadlineError, OverloadedError, UnavailableError
from tidegate.gateway.call import Outcome


class Next(Enum):
    """Whether another attempt may follow a failed one.

    `FREE`: another attempt, since no model has worked on the request. `RATIONED`: another one if the budget has a retry,
    since a model may have. `ONE_MORE`: the same, but only once, since the request may have ended the server.
    `OTHER_TARGET`: one of another target, since the model itself failed. `STOP`: none.
    """

    FREE = 1
    RATIONED = 2
    ONE_MORE = 3
    OTHER_TARGET = 4
    STOP = 5


class Kind(Enum):
    """Which error the caller gets if no attempt succeeds."""

    UNAVAILABLE = 1
    LATE = 2
    BUSY = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.

    Attributes:
        text: target, shard and reason; empty for an attempt that was never made.
        next: what may follow.
        kind: which error the caller gets if no attempt succeeds.
        outcome: an error answer to pass on if no attempt succeeds.
        repeat: the same endpoint may be tried again: only the connection may have failed, or another server may answer.
        shuns_model: what failed is the model, so another target comes next, if there is one.
        loses_sequence: the place does not have the state of the call's sequence, or not any more.
        ended: the server, or the model's process, ended while it had the request.
    """

    text: str
    next: Next
    kind: Kind = Kind.UNAVAILABLE
    outcome: Outcome | None = None
    repeat: bool = False
    shuns_model: bool = False
    loses_sequence: bool = False
    ended: bool = False


def result(failures: Sequence[Failure]) -> Outcome:
    """Return the error answer to pass on after all attempts failed: the first of a model's own, else the last.

    Raises:
        DeadlineError: the last attempt was late.
        OverloadedError: a target accepts no more requests.
        UnavailableError: no target answered.
    """
    texts = tuple(failure.text for failure in failures if failure.text)
    # A request that no model can work on is best explained by the model that it was meant for.
    answered = [failure for failure in failures if failure.outcome is not None]
    for failure in (*(each for each in answered if each.shuns_model), *reversed(answered)):
        if failure.outcome is not None:
            return failure.outcome
    kind = failures[-1].kind
    if kind is Kind.LATE:
        raise DeadlineError("no target answered before the deadline", texts)
    if any(failure.kind is Kind.BUSY for failure in failures):
        raise OverloadedError("no target takes more requests now", texts)
    raise UnavailableError("every target failed", texts)
