"""Comparing outputs, against numpy and scipy."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tidegate.oip.arrays import NUMPY_TYPES, decode, rounded_to_bfloat16
from tidegate.rules.contract import Ranking
from tidegate.shadows.comparison import MOST_ROWS, compare_outputs, compare_rankings
from tidegate.shadows.tensors import read_tensors

from tests.shadows.answers import answer, tensor

FLOATS = ["FP16", "BF16", "FP32", "FP64"]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def compared(primary, shadow, **how):
    return compare_outputs(read_tensors(answer(primary, **how)), read_tensors(answer(shadow, **how)))


@st.composite
def two_tensors(draw, datatype):
    """Two tensors of a datatype and shape, most of whose elements are equal or near."""
    kind = np.dtype(NUMPY_TYPES[datatype])
    elements = st.binary(max_size=3) if datatype == "BYTES" else arrays.from_dtype(kind)
    shape = draw(SHAPES)
    first = draw(arrays.arrays(kind, shape, elements=elements, fill=st.nothing()))
    second = draw(arrays.arrays(kind, shape, elements=elements, fill=st.nothing()))
    kept = draw(arrays.arrays(np.bool_, shape))
    second = np.where(kept, first, second).astype(kind)
    if datatype == "BF16":
        with np.errstate(all="ignore"):
            first, second = rounded_to_bfloat16(first.ravel()), rounded_to_bfloat16(second.ravel())
    return first.reshape(shape), second.reshape(shape)


def oracle(first, second):
    """Return the count of equal numbers, and the largest absolute and relative errors, as docs/shadows.md defines them."""
    with np.errstate(all="ignore"):
        first, second = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
        equal = (first == second) | (np.isnan(first) & np.isnan(second))
        finite = np.isfinite(first) & np.isfinite(second)
        absolute = np.where(equal, 0.0, np.where(finite, np.abs(first - second), np.inf))
        scale = np.maximum(np.abs(first), np.abs(second))
        relative = np.where(equal, 0.0, np.where(finite, np.abs(first / scale - second / scale), np.inf))
    return int(equal.sum()), absolute.max(initial=0.0), relative.max(initial=0.0)


@pytest.mark.parametrize("datatype", FLOATS)
@settings(max_examples=60)
@given(data=st.data(), coding=st.sampled_from([None, "gzip", "deflate"]))
def test_errors_of_floats_are_those_of_numpy(datatype, data, coding):
    first, second = data.draw(two_tensors(datatype))
    found = compared({"y": (datatype, first)}, {"y": (datatype, second)}, coding=coding)["y"]
    equal, absolute, relative = oracle(first, second)
    assert (found.elements, found.equal) == (first.size, equal)
    assert found.errors == (absolute, pytest.approx(relative, rel=1e-9))
    assert found.is_identical == (equal == first.size)


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_TYPES) - set(FLOATS)))
@settings(max_examples=25)
@given(data=st.data())
def test_other_elements_are_equal_or_not(datatype, data):
    first, second = data.draw(two_tensors(datatype))
    found = compared({"y": (datatype, first)}, {"y": (datatype, second)})["y"]
    assert (found.elements, found.equal) == (first.size, int((first == second).sum()))
    assert found.errors is None


@settings(max_examples=60)
@given(st.data(), st.sampled_from(["FP32", "FP64", "INT64", "UINT8", "BOOL", "BYTES"]))
def test_an_output_is_the_same_in_json_and_in_binary(data, datatype):
    values, _ = data.draw(two_tensors(datatype))
    if datatype == "BYTES":
        values = np.array([each.hex().encode() for each in values.ravel()] + [b""], object)[:-1].reshape(values.shape)
    outputs = {"y": (datatype, values)}
    assert decode(answer(outputs, in_json=("y",)).body)["y"].array.shape == values.shape
    binary, plain = read_tensors(answer(outputs)), read_tensors(answer(outputs, in_json=("y",)))
    found = compare_outputs(binary, plain)["y"]
    assert found.is_identical
    assert found.elements == values.size


def test_numbers_in_json_are_rounded_to_their_datatype():
    binary = answer({"y": tensor("FP32", [0.1, 1e-3])})
    plain = answer({"y": ("FP32", np.array([0.1, 1e-3]))}, in_json=("y",))
    assert compare_outputs(read_tensors(binary), read_tensors(plain))["y"].errors == (0.0, 0.0)


@pytest.mark.parametrize(
    ("primary", "shadow", "errors"),
    [
        (0.0, -0.0, (0.0, 0.0)),
        (0.0, 0.5, (0.5, 1.0)),
        (2.0, 1.5, (0.5, 0.25)),
        (1.5, 2.0, (0.5, 0.25)),
        (-1.0, 1.0, (2.0, 2.0)),
        (math.nan, math.nan, (0.0, 0.0)),
        (math.nan, 1.0, (math.inf, math.inf)),
        (math.inf, math.inf, (0.0, 0.0)),
        (math.inf, -math.inf, (math.inf, math.inf)),
        (math.inf, 1e308, (math.inf, math.inf)),
        (1.5e308, -1.5e308, (math.inf, 2.0)),
    ],
)
def test_special_numbers(primary, shadow, errors):
    found = compared({"y": tensor("FP64", [primary])}, {"y": tensor("FP64", [shadow])})["y"]
    assert found.errors == errors
    assert found.equal == (errors == (0.0, 0.0))


def test_widths_of_one_kind_of_number_are_compared_and_told_apart():
    found = compared(
        {"f": tensor("FP32", [1.0, 2.0]), "i": tensor("INT32", [1, 2]), "mixed": tensor("INT32", [1])},
        {"f": tensor("FP16", [1.0, 2.5]), "i": tensor("UINT64", [1, 2]), "mixed": tensor("FP32", [1])},
    )
    assert (found["f"].errors, found["f"].datatypes) == ((0.5, 0.2), ("FP32", "FP16"))
    assert (found["i"].equal, found["i"].is_identical) == (2, False)
    assert (found["mixed"].shapes_match, found["mixed"].is_compared) == (True, False)


def test_an_output_that_one_answer_lacks_or_has_in_another_shape():
    found = compared(
        {"a": tensor("FP32", [1]), "b": tensor("FP32", [[1, 2]])},
        {"b": tensor("FP32", [1, 2]), "c": tensor("BOOL", [True])},
    )
    assert {name: each.datatypes for name, each in found.items()} == {
        "a": ("FP32", None), "b": ("FP32", "FP32"), "c": (None, "BOOL"),
    }  # fmt: skip
    assert not any(each.is_compared or each.is_identical for each in found.values())


def ranked(first, second, k):
    outputs = [{"ids": (datatype, each)} for datatype, each in (first, second)]
    return compare_rankings(Ranking("ids", k), *(read_tensors(answer(each)) for each in outputs))


@settings(max_examples=100)
@given(st.permutations(range(9)), st.permutations(range(9)), st.integers(1, 8), st.integers(1, 8), st.integers(1, 9))
def test_tau_is_that_of_scipy_over_the_common_items(first, second, size, other_size, k):
    stats = pytest.importorskip("scipy.stats")
    first, second = first[:size], second[:other_size]
    found = ranked(tensor("INT64", [first]), tensor("INT64", [second]), k)
    first, second = first[:k], second[:k]
    common = [item for item in first if item in second]
    assert found.overlap == pytest.approx(len(common) / max(len(first), len(second)))
    if len(common) < 2:
        assert found.tau is None
    else:
        expected = stats.kendalltau([first.index(item) for item in common], [second.index(item) for item in common])
        assert found.tau == pytest.approx(expected.statistic)


def test_rankings_of_a_batch_are_averaged_and_may_be_text():
    first = ("BYTES", np.array([[b"a", b"b", b"c"], [b"a", b"b", b"c"]], object))
    second = ("BYTES", np.array([[b"a", b"b", b"c"], [b"c", b"b", b"x"]], object))
    assert ranked(first, second, 3) == (pytest.approx((1 + 2 / 3) / 2), 0.0)
    assert ranked(first, ("BYTES", second[1][:1]), 3) is None


def test_a_ranking_without_items_and_what_is_none():
    empty = ("INT64", np.zeros((1, 0), np.int64))
    assert ranked(empty, empty, 3) == (1.0, None)
    assert ranked(empty, tensor("INT64", [[1]]), 3) == (0.0, None)
    assert ranked(tensor("FP32", [[1.0]]), tensor("FP32", [[1.0]]), 3) is None
    assert ranked(tensor("INT64", 1), tensor("INT64", 1), 3) is None
    assert ranked(("INT64", np.zeros((2**40, 0), np.int64)), ("INT64", np.zeros((2**40, 0), np.int64)), 3) is None


def test_a_ranking_of_many_rows_takes_little_memory_and_of_too_many_is_none():
    def answers(rows):
        return [read_tensors(answer({"ids": ("INT8", np.zeros((rows, 1), np.int8))})) for _ in range(2)]

    most, more = answers(MOST_ROWS), answers(MOST_ROWS + 1)
    tracemalloc.start()
    try:
        assert compare_rankings(Ranking("ids", 10), *most) == (1.0, None)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    assert compare_rankings(Ranking("ids", 10), *more) is None


def test_an_item_that_is_ranked_twice_counts_where_it_is_first():
    assert ranked(tensor("INT64", [[1, 2, 1, 3]]), tensor("INT64", [[1, 2, 3]]), 4) == (1.0, 1.0)


@given(st.integers(0, 5), st.integers(1, 5))
def test_the_same_answer_is_identical_whatever_it_holds(rows, columns):
    assume(rows or columns)
    values = np.full((rows, columns), np.nan, np.float32)
    found = compared({"y": ("FP32", values)}, {"y": ("FP32", values)})["y"]
    assert found.is_identical
    assert found.errors == (0.0, 0.0)
