"""Models' answers that are too large are refused, and other callers are not affected."""

from __future__ import annotations

from tests.isolation.conftest import Bystander
from tests.isolation.place import Order, Place, infer
from tests.support.processes import resident_mib

ANSWER_MIB = 20


def test_answers_that_are_too_large_are_refused_and_not_kept(place: Place, bystander: Bystander) -> None:
    held_mib = resident_mib(place.gateway_pid)
    request = infer("fragile", (Order.ANSWER_MIB, ANSWER_MIB))
    with bystander():
        replies = [place.ask(request) for _ in range(2)]
    # A float takes several bytes of JSON, so this is far above the largest answer that is taken.
    assert {reply.status for reply in replies} == {502}
    assert resident_mib(place.gateway_pid) < held_mib + 300
