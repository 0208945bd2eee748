"""Adding up the differences of shadows' answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.errors import StoreError
from tidegate.rules.contract import Ranking
from tidegate.shadows.counts import Drop, LeftOut, dropped, left_out
from tidegate.shadows.exchange import Answer, NoAnswer, worker_parts
from tidegate.shadows.pair_tally import MOST_OUTPUTS
from tidegate.shadows.sampled import MOST_PAIRS as MOST_COUNTED
from tidegate.shadows.sampled import SAMPLED, PairCounts
from tidegate.shadows.sketch import MOST_BINS, SKETCH, Grid, Sketch
from tidegate.shadows.tallies import MOST_PAIRS, Tallies
from tidegate.shadows.tensors import MOST_BYTES, MOST_TENSORS, Unreadable
from tidegate.web.heavy import perform, result

from tests.shadows.answers import PAIR, answer, exchange, tensor

SAME = answer({"y": tensor("FP32", [1.0, 2.0])})
NUMBERS = st.floats(allow_nan=False, min_value=0)


def tally_of(*exchanges):
    tallies = Tallies()
    for each in exchanges:
        tallies.add(each)
    (tally,) = tallies.pairs.values()
    return tally


def sketch_of(numbers):
    sketch = Sketch()
    for number in numbers:
        sketch.add(number)
    return sketch


@settings(max_examples=150)
@given(st.lists(NUMBERS, min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_is_within_one_percent(numbers, share):
    exact = sorted(numbers)[math.floor(share * (len(numbers) - 1))]
    found = sketch_of(numbers).quantile(share)
    largest = max((abs(number) for number in numbers if abs(number) <= 1e300), default=0.0)
    # Numbers that far below the largest share a bin.
    assert found == pytest.approx(math.inf if exact > 1e300 else exact, rel=0.0101, abs=largest * 1.1e-8)


def stored(sketch):
    return SKETCH.read(json.loads(json.dumps(SKETCH.write(sketch))))


@settings(max_examples=150)
@given(st.lists(st.tuples(NUMBERS, st.integers(0, 3)), max_size=40))
def test_merged_sketches_are_the_sketch_of_all_numbers(placed):
    parts = [sketch_of(number for number, place in placed if place == part) for part in range(4)]
    merged = stored(parts[0])
    for part in parts[1:]:
        merged.merge(stored(part))
    assert SKETCH.write(merged) == SKETCH.write(sketch_of(number for number, _ in placed))
    assert sum(each.numbers for each in merged.bins()) == merged.count - merged.infinite


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30), st.floats(0, 1))
def test_the_quantiles_of_a_grid_are_exact_to_a_thousandth(thousandths, share):
    grids = Grid(), Grid()
    for place, each in enumerate(thousandths):
        grids[place % 2].add(each / 1000)
    grids[0].merge(grids[1])
    assert grids[0].quantile(share) == sorted(thousandths)[math.floor(share * (len(thousandths) - 1))] / 1000


def test_a_sketch_is_bounded():
    sketch = sketch_of(1.01**power for power in range(-6000, 6001))
    assert len(SKETCH.write(sketch)["bins"]) == MOST_BINS
    assert sketch.quantile(1.0) == 1.01**6000
    assert sketch.quantile(0.0) == 1.01**-6000


OUTPUTS = st.dictionaries(
    st.sampled_from(["y", "ids", "z"]),
    st.tuples(st.sampled_from(["FP32", "FP16", "INT64"]), st.lists(st.integers(-3, 3), min_size=1, max_size=3)),
    max_size=3,
)
ANSWERS = st.one_of(
    st.builds(
        lambda outputs, ms: answer({name: tensor(*each) for name, each in outputs.items()}, latency_ms=ms),
        OUTPUTS,
        st.floats(0.1, 9),
    ),
    st.builds(
        Answer,
        st.sampled_from([200, 400, 503]),
        st.just([]),
        st.sampled_from([b"", b"{}", b'{"outputs":1}']),
        st.just(1.0),
    ),
)
EXCHANGES = st.builds(
    exchange,
    ANSWERS,
    ANSWERS | st.sampled_from(NoAnswer) | st.sampled_from(Drop),
    ranking=st.none() | st.just(Ranking("ids", 2)),
    pair=st.sampled_from([PAIR, PAIR._replace(rule="kids")]),
    at=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(EXCHANGES, st.integers(0, 2)), max_size=12))
def test_merged_tallies_are_the_tallies_of_all_shadows(placed):
    whole = Tallies()
    for each, _ in placed:
        whole.add(each)
    merged = Tallies()
    for part in range(3):
        parts = worker_parts([each for each, place in placed if place == part])
        merged.merge(Tallies.from_json(result(perform("compare_shadows", parts))))
    assert by_pair(merged) == by_pair(whole)
    assert {pair: each.carried_out for pair, each in merged.pairs.items()} == {
        pair: sum(each.pair == pair for each, _ in placed) for pair in whole.pairs
    }


def by_pair(tallies):
    return {tuple(each["pair"]): each for each in json.loads(tallies.to_json())["pairs"]}


def test_answers_that_differ_in_known_ways():
    primary = answer(
        {
            "ids": tensor("INT64", [[1, 2, 3]]),
            "score": tensor("FP32", [[0.5, 0.25, 0.0]]),
            "old": tensor("BOOL", [True]),
        },
        latency_ms=2.0,
    )
    shadow = answer(
        {
            "ids": tensor("INT64", [[2, 1, 4]]),
            "score": tensor("FP32", [[0.5, 0.5, 0.0]]),
            "new": tensor("BOOL", [True]),
        },
        latency_ms=3.0,
    )
    tally = tally_of(*[exchange(primary, shadow, Ranking("ids", 3))] * 3, exchange(primary, primary, Ranking("ids", 3)))
    assert (tally.sent, tally.compared, tally.identical) == (4, 4, 1)
    score, ids = tally.outputs["score"], tally.outputs["ids"]
    assert (score.elements, score.equal, score.identical) == (12, 9, 1)
    assert (score.absolute.quantile(0.5), score.relative.largest) == (pytest.approx(0.25, rel=0.01), 0.5)
    assert (ids.equal, ids.absolute.count) == (3, 0)
    assert (tally.outputs["old"].only_primary, tally.outputs["new"].only_shadow) == (3, 3)
    assert [tuple(each) for each in tally.overlap.bins()] == [(0.667, 3), (1.0, 1)]
    assert (tally.tau.quantile(0), tally.tau.quantile(1), tally.unranked) == (-1.0, 1.0, 0)
    assert (tally.ratio.smallest, tally.ratio.largest) == (1.0, 1.5)


def test_failures_are_counted_by_their_reason():
    tally = tally_of(
        exchange(SAME, SAME),
        exchange(SAME, NoAnswer.TIMEOUT),
        exchange(SAME, NoAnswer.TIMEOUT),
        exchange(SAME, Drop.LATE),
        exchange(SAME, SAME._replace(status=503)),
        exchange(SAME._replace(status=400), SAME._replace(status=400)),
        exchange(SAME._replace(status=400), SAME),
        exchange(SAME._replace(body=b""), NoAnswer.RESET),
        exchange(SAME, SAME._replace(body=SAME.body[:-1])),
    )
    assert tally.shadow_failed == {"timeout": 2, "status 503": 1, "reset": 1, Unreadable.MALFORMED: 1}
    assert (tally.primary_failed, tally.both_failed) == ({"status 400": 2}, 1)
    assert (tally.sent, tally.dropped, tally.compared, tally.ratio.count) == (8, {"late": 1}, 1, 2)


def counted(*counts, pair=PAIR, at=1000.0):
    made = PairCounts()
    for name, count in counts:
        made.add(pair, "5f2c", at, name, count)
    return json.loads(json.dumps(made.take()))


def test_nothing_that_a_shadow_sampled_is_lost_silently():
    """What the gateway counted and what the copies had add up, whichever is heard of first."""
    records = counted((SAMPLED, 9), (dropped(Drop.MEMORY), 2), (left_out(LeftOut.SEQUENCE), 1), at=500.0)
    for first in (True, False):
        tallies = Tallies()
        if first:
            tallies.count(records)
        for each in (SAME, NoAnswer.TIMEOUT, Drop.LATE):
            tallies.add(exchange(SAME, each))
        tallies.add_uncompared(exchange(SAME, SAME))
        if not first:
            tallies.count(records)
        (tally,) = Tallies.from_json(tallies.to_json()).pairs.values()
        assert (tally.sampled, tally.sent, tally.compared, tally.not_compared) == (9, 3, 1, 1)
        assert (tally.dropped, tally.left_out) == ({"memory": 2, "late": 1}, {"sequence": 1})
        assert tally.missing == 2, "under way or lost"
        assert (tally.first_at, tally.last_at) == (500.0, 1000.0)


def test_counts_of_a_pair_are_taken_once_merged_and_bounded():
    made = PairCounts()
    for number in range(MOST_COUNTED + 3):
        made.add(PAIR._replace(rule=f"rule-{number}"), "r", 1.0, SAMPLED)
    records = made.take()
    assert (len(records), bool(made), made.take()) == (MOST_COUNTED, False, [])
    made.merge(records[:1])
    made.add(PAIR._replace(rule="rule-0"), "s", 3.0, SAMPLED)
    assert made.take() == [[list(PAIR._replace(rule="rule-0")), "s", 1.0, 3.0, {SAMPLED: 2}]]


@pytest.mark.parametrize(
    "records",
    [
        None,
        7,
        [[]],
        [["pair", "r", 1.0, 1.0, {}]],
        [[[*PAIR], "r", "now", 1.0, {}]],
        [[[*PAIR], "r", 1.0, 1.0, {"sampled": -1}]],
        [[[*PAIR], "r", 1.0, 1.0, {"sampled": True}]],
        [[[*PAIR], "r", 1.0, 1.0, {"sent": 1}]],
        [[[*PAIR], "r", 1.0, 1.0, {"dropped: because": 1}]],
        [[[*PAIR][:-1], "r", 1.0, 1.0, {}]],
    ],
)
def test_only_counts_that_a_gateway_makes_are_added(records):
    tallies = Tallies()
    with pytest.raises(StoreError, match="counts of shadows"):
        tallies.count(records)
    assert tallies.pairs == {}


def json_answer(*outputs):
    return Answer(200, [], json.dumps({"outputs": outputs}).encode(), 1.0)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (SAME._replace(headers=[(b"content-encoding", b"br")]), Unreadable.CODING),
        (SAME._replace(headers=[*SAME.headers, (b"content-encoding", b"gzip")]), Unreadable.MALFORMED),
        (SAME._replace(headers=[(b"inference-header-content-length", b"-1")]), Unreadable.MALFORMED),
        (SAME._replace(headers=[]), Unreadable.MALFORMED),
        (SAME._replace(body=bytes(MOST_BYTES + 1)), Unreadable.TOO_LARGE),
        (answer({"y": tensor("INT8", np.zeros(MOST_BYTES))}, coding="gzip"), Unreadable.TOO_LARGE),
        (
            json_answer(
                *[{"name": str(n), "datatype": "FP32", "shape": [0], "data": []} for n in range(MOST_TENSORS + 1)]
            ),
            Unreadable.TOO_LARGE,
        ),
        (Answer(200, [], b"[" * 200_000, 1.0), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2, 3]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": [1], "data": ["1"]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": [1], "data": [None]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "INT8", "shape": [1], "data": [128]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP8", "shape": [1], "data": [1]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "BYTES", "shape": [1], "data": [1]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "BOOL", "shape": [1], "data": [1]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "BYTES", "shape": [1], "data": ["\ud800"]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": [10**4000] * 64, "data": [1]}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": [-1], "data": []}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": 1, "data": [1]}), Unreadable.MALFORMED),
        (json_answer(*[{"name": "y", "datatype": "FP32", "shape": [0], "data": []}] * 2), Unreadable.MALFORMED),
        (json_answer({"name": "\ud800", "datatype": "FP32", "shape": [0], "data": []}), Unreadable.MALFORMED),
        (json_answer({"name": "y" * 300, "datatype": "FP32", "shape": [0], "data": []}), Unreadable.MALFORMED),
        (json_answer({"name": "y", "datatype": "FP32", "shape": [0]}), Unreadable.MALFORMED),
        (Answer(200, [], b'{"outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "data": [1e400]}]}', 1.0), None),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_compared_is_counted_with_its_reason(broken, why):
    expected = {} if why is None else {why: 1}
    assert tally_of(exchange(SAME, broken)).shadow_failed == expected
    assert tally_of(exchange(broken, SAME)).primary_failed == expected
    assert Tallies.from_json(worker_tallies(exchange(SAME, broken))).pairs


@settings(max_examples=150)
@given(st.data())
def test_no_answer_makes_the_comparison_fail(data):
    body = bytearray(answer({"y": tensor("FP32", [1.0]), "t": tensor("BYTES", [b"a"])}).body)
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=3)):
        body[at] = data.draw(st.integers(0, 255))
    broken = SAME._replace(
        headers=[(b"inference-header-content-length", b"%d" % data.draw(st.integers(0, 300)))], body=bytes(body)
    )
    tally = tally_of(exchange(SAME, broken, Ranking("y", 2)))
    assert tally.compared + sum(tally.shadow_failed.values()) == 1
    assert Tallies.from_json(worker_tallies(exchange(SAME, broken))).left_out == 0


def worker_tallies(*exchanges):
    return result(perform("compare_shadows", worker_parts(exchanges)))


def test_pairs_and_outputs_are_bounded():
    tallies = Tallies()
    wide = answer({f"y{number}": tensor("FP32", [1.0]) for number in range(MOST_OUTPUTS + 3)})
    for number in range(MOST_PAIRS + 5):
        tallies.add(exchange(wide if number == 0 else SAME, SAME, pair=PAIR._replace(rule=f"rule-{number}")))
    assert (len(tallies.pairs), tallies.left_out) == (MOST_PAIRS, 5)
    first = next(iter(tallies.pairs.values()))
    assert (len(first.outputs), first.outputs_left_out) == (MOST_OUTPUTS, 4)
    merged = Tallies()
    merged.merge(tallies)
    assert merged.to_json() == tallies.to_json()


def test_the_last_shadow_has_the_revision():
    early, late = exchange(SAME, SAME, at=1.5)._replace(revision="ffff"), exchange(SAME, SAME, at=9.0)
    for both in ((early, late), (late, early)):
        tally = tally_of(*both)
        assert (tally.revision, tally.first_at, tally.last_at) == ("5f2c", 1.5, 9.0)


WRITTEN = json.loads(worker_tallies(exchange(SAME, SAME), exchange(SAME, NoAnswer.RESET)))


def changed(path, value):
    document = json.loads(json.dumps(WRITTEN))
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        changed(["format"], 1),
        changed(["pairs", 0, "sampled"], -1),
        changed(["pairs", 0, "sent"], True),
        changed(["pairs", 0, "new"], 1),
        changed(["pairs", 0, "pair"], ["ranking"]),
        changed(["pairs", 0, "outputs", "y", "compared"], 1.0),
        changed(["pairs", 0, "ratio", "bins"], [[1, 1], [0, 1]]),
        changed(["pairs", 0, "ratio", "bins"], [[10**9, 1]]),
        changed(["pairs", 0, "ratio", "bins"], [[key, 1] for key in range(MOST_BINS + 1)]),
        changed(["pairs", 0, "ratio", "largest"], None),
        changed(["pairs", 0, "primary_ms", "smallest"], None),
        changed(["pairs", 0, "overlap"], [[1001, 1]]),
        changed(["pairs", 0, "overlap"], [[2, 1], [1, 1]]),
        changed(["pairs", 0, "tau"], [[1, 1], [1, 1]]),
        changed(["left_out"], None),
    ],
)
def test_only_what_is_written_is_read(data):
    assert Tallies.from_json(changed(["left_out"], 7)).left_out == 7
    with pytest.raises(StoreError, match="tallies of shadows"):
        Tallies.from_json(data)
