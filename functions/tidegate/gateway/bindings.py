"""Which endpoint and decision each sequence has for its life.

The state of a sequence is in the memory of one server. So its first request picks the endpoint, and all others follow it, by the
decision of the first. This table belongs to one process. Another process, such as another function, searches: it asks the
endpoints in the order in which a first request would have tried them. Triton answers 400, without running the model, where it
does not know the sequence.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from tidegate.ports import Endpoint
from tidegate.rules.decision import Decision

MOST_BINDINGS: Final = 50_000
"""Beyond it, the sequence that was used least recently has to be searched again."""


class Sequence(NamedTuple):
    """The part of a request that concerns its sequence.

    Attributes:
        id: the id that the caller gave it, as text.
        starts: whether this is its first request.
        ends: whether this is its last request.
        endpoint: where it lives; None where that is not known.
        given: the id in the request itself, a number or a text; None where only a header names the sequence.
        sent: what Triton gets in place of `given`; None: the request stays as it is.
    """

    id: str
    starts: bool = False
    ends: bool = False
    endpoint: Endpoint | None = None
    given: int | str | None = None
    sent: int | str | None = None


class Binding(NamedTuple):
    """What a sequence keeps for its life."""

    decision: Decision
    endpoint: Endpoint


class Bindings:
    """The sequences that this process has served, each by its objective, its caller and its id, of which Triton distinguishes a
    number from a text."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str | None, str, bool], Binding] = OrderedDict()

    def find(self, objective: str, caller: str | None, sequence: Sequence) -> Binding | None:
        """Return the binding of a sequence that has begun; None if it is not known here."""
        return None if sequence.starts else self._kept.get(_key(objective, caller, sequence))

    def bind(self, decision: Decision, caller: str | None, sequence: Sequence, endpoint: Endpoint) -> None:
        """Keep the endpoint that answered a request of a sequence, until the sequence ends."""
        key = _key(decision.objective, caller, sequence)
        if sequence.ends:
            self._kept.pop(key, None)
            return
        self._kept[key] = Binding(decision, endpoint)
        self._kept.move_to_end(key)
        if len(self._kept) > MOST_BINDINGS:
            self._kept.popitem(last=False)

    def lose(self, objective: str, caller: str | None, sequence: Sequence) -> None:
        """Forget a sequence whose state is gone."""
        self._kept.pop(_key(objective, caller, sequence), None)


def _key(objective: str, caller: str | None, sequence: Sequence) -> tuple[str, str | None, str, bool]:
    return objective, caller, sequence.id, isinstance(sequence.given, str)
