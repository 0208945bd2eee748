"""What Triton gets in place of the sequence ids that callers choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import UnavailableError
from tidegate.gateway.private_ids import LARGEST_SMALL_ID, PrivateIds

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
SMALL = st.integers(1, LARGEST_SMALL_ID)
NUMBERS = SMALL | st.integers(1, 2**64 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)


@given(NAMES, NAMES, NUMBERS)
def test_a_number_stays_a_positive_one_in_64_and_in_32_bits(objective: str, caller: str, number: int) -> None:
    found = PrivateIds().of(objective, caller, number)
    assert isinstance(found, int)
    assert 0 < found < 2**63
    assert 0 < found & 0xFFFF_FFFF <= LARGEST_SMALL_ID


@given(NAMES, TEXTS)
def test_a_text_stays_a_text_of_its_size(caller: str, text: str) -> None:
    found = PrivateIds(lambda: "a key").of("ranking", caller, text)
    assert isinstance(found, str)
    assert len(found) == max(20, len(text.encode()))
    assert found.isascii()


@given(NAMES, st.sets(SMALL, min_size=2, max_size=200))
def test_small_numbers_of_a_caller_never_meet_even_in_32_bits(caller: str, numbers: set[int]) -> None:
    ids = PrivateIds()
    assert len({int(ids.of("ranking", caller, number)) & 0xFFFF_FFFF for number in numbers}) == len(numbers)


@given(st.lists(st.tuples(NAMES, NAMES, NUMBERS | TEXTS), unique=True, min_size=2, max_size=50))
def test_no_two_sequences_have_the_same_id(sequences: list[tuple[str, str, int | str]]) -> None:
    ids = PrivateIds(lambda: "a key")
    assert len({ids.of(*each) for each in sequences}) == len(sequences)


def test_ids_are_the_same_in_every_process_and_release() -> None:
    """Sequences go on while gateways of another release take over."""
    ids = PrivateIds(lambda: "a key")
    assert ids.of("ranking", "home", 7) == 9_074_030_244_624_767_883
    assert ids.of("ranking", "home", 2**40) == 3_967_224_939_169_572_578
    assert ids.of("ranking", "home", "seven") == "S_3phpYHVs7j3RRvReqC"
    assert PrivateIds().of("ranking", "home", 7) == 746_616_624_230_697_882


def test_the_key_is_read_once_and_again_where_that_failed() -> None:
    answers: list[str | Exception] = [UnavailableError("not now"), "a key", "another key"]

    def read_key() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ids = PrivateIds(read_key)
    with pytest.raises(UnavailableError):
        ids.of("ranking", "home", 7)
    assert ids.of("ranking", "home", 7) == PrivateIds(lambda: "a key").of("ranking", "home", 7)
    ids.of("ranking", "home", "a")
    assert answers == ["another key"]
