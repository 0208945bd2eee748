"""The outcome of a proof passes from the process that proves to the one that asked for it."""

from __future__ import annotations

from tidegate.analysis.proof_outcome import CaseTally, ProofOutcome, decode_outcome, encode_outcome
from tidegate.errors import Finding
from tidegate.placement import FleetDemand, ModelDemand, ShardCapacity


def test_all_of_it_is_read_as_it_was_written() -> None:
    demand = FleetDemand(
        (ShardCapacity("a", 100, 2.5), ShardCapacity("b")),
        {"m": ModelDemand(("a", "b"), 10, 0.5, 2, "globex"), "n": ModelDemand()},
        {"step": 7},
        (("globex", "initech"),),
    )
    finding = Finding("objectives/o.yaml", 3, "kids", "“ü” is wrong", "write 'u'", 7)
    cases = CaseTally(2, (finding,), (("o", "kids"),))
    for bundle, summary in ((None, None), ('{"ü": 1}'.encode(), "1 objective")):
        outcome = ProofOutcome(bundle, demand, summary, (finding,), (finding, finding), cases)
        assert decode_outcome(encode_outcome(outcome).encode()) == outcome
