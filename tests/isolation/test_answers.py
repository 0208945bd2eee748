"""Models' answers that are too large are refused, and other callers are not affected."""

from __future__ import annotations

from tests.isolation.conftest import Bystander
from tests.isolation.place import Order, Place, infer, tensors
from tests.support.processes import resident_mib

ANSWER_MIB = 20


def test_answers_that_are_too_large_are_refused_and_not_kept(place: Place, bystander: Bystander) -> None:
    held_mib = resident_mib(place.gateway_pid)
    # Binary, as the model's server takes seconds to write it as JSON on a busy machine.
    request = infer("fragile", tensors((Order.ANSWER_MIB, ANSWER_MIB), parameters={"binary_data_output": True}))
    with bystander():
        replies = [place.ask(request) for _ in range(2)]
    assert {reply.status for reply in replies} == {502}
    assert resident_mib(place.gateway_pid) < held_mib + 300
