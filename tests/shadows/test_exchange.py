"""An exchange survives the way to a worker process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tidegate.rules.contract import Ranking
from tidegate.rules.decision import Target
from tidegate.shadows.exchange import Answer, Exchange, NoAnswer, Pair, exchanges_of, worker_parts

HEADERS = st.lists(
    st.tuples(st.sampled_from([b"content-encoding", b"inference-header-content-length"]), st.binary(max_size=9))
)
ANSWERS = st.builds(Answer, st.integers(100, 599), HEADERS, st.binary(max_size=40), st.floats(0, 1e6))
EXCHANGES = st.builds(
    Exchange,
    st.builds(Pair, *[st.text(max_size=9)] * 6),
    st.text(max_size=9),
    st.floats(0, 1e10),
    ANSWERS,
    ANSWERS | st.sampled_from(NoAnswer),
    st.none() | st.builds(Ranking, st.text(max_size=9), st.integers(1, 100)),
)


@given(st.lists(EXCHANGES, max_size=5))
def test_a_worker_reads_the_exchanges_that_it_is_sent(exchanges):
    assert list(exchanges_of(worker_parts(exchanges))) == exchanges


def test_only_the_headers_that_describe_the_body_are_sent():
    answer = Answer(200, [(b"set-cookie", b"secret"), (b"content-encoding", b"gzip")], b"{}", 1.0)
    target = Target("ranking@champion", "ranking", 3, ("a",))
    pair = Pair.of("ranking", "default", target, Target("ranking", "ranking", None, ("a",)))
    parts = worker_parts([Exchange(pair, "r", 0.0, answer, answer)])
    assert not any(b"secret" in part for part in parts)
    (read,) = exchanges_of(parts)
    assert read.primary.header(b"content-encoding") == b"gzip"
    assert (read.pair.primary, read.pair.primary_model, read.pair.shadow_model) == (
        "ranking@champion",
        "ranking/3",
        "ranking",
    )
