"""Scanning JSON agrees with parsing it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tidegate.errors import Refusal, RefusedError
from tidegate.oip.json_walk import MOST_MEMBERS, MOST_NESTED, UnwalkableError, check_nesting, top_members
from tidegate.oip.request_json import PARAMETERS, SEQUENCE_ID, examine
from tidegate.oip.shapes import LONGEST_SHAPE_BYTES, MOST_BESIDE_ZERO, MOST_DIMENSIONS, check_shapes

TEXTS = st.text(alphabet=st.sampled_from('[]{}",:\\ \n\tab\u00e9\U0001f600')) | st.text()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=5) | st.dictionaries(TEXTS, each, max_size=5), max_leaves=30
)
BRACKETS = st.text(alphabet='[]{}"\\,a1 ', max_size=60)


def written(value: Any, ascii_only: bool, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")


def deepest(text: bytes) -> int:
    """Return how deep a parser of JSON descends in a text, reading byte by byte."""
    depth = most = 0
    is_text = is_escaped = False
    for byte in text.decode("latin-1"):
        if is_text:
            is_text = is_escaped or byte != '"'
            is_escaped = byte == "\\" and not is_escaped
        elif byte == '"':
            is_text = True
        elif byte in "[{":
            depth += 1
            most = max(most, depth)
        elif byte in "]}":
            depth -= 1
            if depth == 0:
                return most
    return most


def is_refused(text: bytes) -> bool:
    try:
        check_nesting(text, len(text))
    except UnwalkableError:
        return True
    return False


@given(value=VALUES, levels=st.integers(0, MOST_NESTED + 10), ascii_only=st.booleans())
@example(value=["]" * 100, "\\"], levels=MOST_NESTED - 1, ascii_only=True)
def test_nesting_is_bounded_as_a_reader_byte_by_byte_finds_it(value: Any, levels: int, ascii_only: bool) -> None:
    text = b"[" * levels + b'{"a":' * levels + written(value, ascii_only) + b"}" * levels + b"]" * levels
    assert is_refused(text) == (deepest(text) > MOST_NESTED)


@given(text=BRACKETS, levels=st.integers(0, 60))
def test_no_text_of_any_kind_gets_a_reader_deeper(text: str, levels: int) -> None:
    data = b"[" * levels + text.encode() * 5
    # A parser that stops at the first error descends no deeper than one that continues.
    if not is_refused(data) and data.lstrip()[:1] in (b"[", b"{"):
        assert deepest(data) <= MOST_NESTED


@pytest.mark.parametrize("start", [b"", b" \n", b"\xef\xbb\xbf", b"\xef", b"\xbb\xbf \t"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'["x",', b'[1,"\\"",'])
def test_brackets_without_an_end_are_refused(start: bytes, opening: bytes) -> None:
    assert is_refused(start + opening * 300_000)
    assert is_refused(start + b'{"inputs":' + opening * 100)


@given(
    document=st.dictionaries(st.sampled_from(["parameters", "inputs", "outputs", "id"]) | TEXTS, VALUES, max_size=6),
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 2),
    tail=st.binary(max_size=20),
)
def test_the_members_of_an_object_are_where_a_parser_finds_them(
    document: dict[str, Any], ascii_only: bool, indent: int | None, tail: bytes
) -> None:
    text = written(document, ascii_only, indent)
    try:
        spans = top_members(text + tail, len(text))
    except UnwalkableError:
        assert deepest(text) > MOST_NESTED
        return
    assert [name.encode("utf-8", "surrogatepass") for name in document] == [
        name.encode("utf-8", "surrogatepass" if ascii_only else "surrogateescape") for name in spans
    ]
    found = [json.loads(text[start:stop].decode("utf-8", "surrogatepass")) for start, stop in spans.values()]
    assert repr(found) == repr(list(document.values())), "repr, since NaN is not equal to itself"


@pytest.mark.parametrize(
    "text",
    [b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}', b'{a:1}', b'{"a":[1}', b'{"a":"', b"{,}",
     b'{"\\x":1}'],
)  # fmt: skip
def test_what_is_no_object_of_json_is_refused(text: bytes) -> None:
    if text == b'{"a":[1}':
        text += b"]"  # Brackets of either kind count: a parser stops at the first mismatch.
    with pytest.raises(UnwalkableError):
        top_members(text, len(text))


def test_a_name_that_is_duplicated_is_refused_however_it_is_written() -> None:
    for second in (b'"parameters"', b'"par\\u0061meters"'):
        text = b'{"parameters":{},%b:{}}' % second
        with pytest.raises(ValueError, match="duplicated"):
            top_members(text, len(text))


@given(
    parameters=st.dictionaries(TEXTS.filter(lambda name: not name.lower().startswith("tidegate")), SCALARS, max_size=4),
    before=st.integers(0, 3),
    filler=st.sampled_from([b"[1,2]", b'["parameters",{"parameters":{"a":1}}]', b'"\\"parameters\\":{"]', b"NaN"]),
    is_large=st.booleans(),
)
def test_parameters_are_found_wherever_they_are(
    parameters: dict[str, Any], before: int, filler: bytes, is_large: bool
) -> None:
    members = [b'"x%d":%b' % (number, filler.replace(b'"]', b'"')) for number in range(4)]
    if is_large:
        members[3] = b'"data":[%b]' % (b"1.5," * 40_000 + b"1.5")
    members.insert(before, b'"parameters":' + written(parameters, True))
    text = b"{" + b",".join(members) + b"}"
    assert repr(dict(examine(text, len(text), len(text), PARAMETERS).parameters)) == repr(parameters)


SIZES = st.integers(0, 2**65) | st.sampled_from([0, 1, 2, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])


@given(
    shapes=st.lists(st.lists(SIZES, max_size=5), max_size=4), size_bytes=st.integers(0, 2**40), escaped=st.booleans()
)
@example(shapes=[[1, 2**62]], size_bytes=441, escaped=False)
@example(shapes=[[2**32, 2**30]], size_bytes=441, escaped=True)
@example(shapes=[[1, 0, 2**62]], size_bytes=441, escaped=False)
def test_shapes_are_refused_by_exact_arithmetic(shapes: list[list[int]], size_bytes: int, escaped: bool) -> None:
    name = b'"sh\\u0061pe"' if escaped else b'"shape"'
    text = b"[" + b",".join(b"{%b : %b}" % (name, written(shape, True)) for shape in shapes) + b"]"
    elements = sum(math.prod(shape) for shape in shapes if shape)
    hidden = [math.prod(each for each in shape if each) for shape in shapes if 0 in shape]
    fits = elements <= size_bytes and all(product <= MOST_BESIDE_ZERO for product in hidden)
    try:
        check_shapes(text, len(text), escaped, size_bytes)
    except RefusedError as error:
        assert (fits, error.kind) == (False, Refusal.MALFORMED)
    else:
        assert fits


def test_a_shape_of_too_many_dimensions_is_refused() -> None:
    text = b'{"shape":[%b]}' % b",".join([b"1"] * (MOST_DIMENSIONS + 1))
    with pytest.raises(RefusedError, match="dimensions"):
        check_shapes(text, len(text), False, 1000)


def test_a_shape_longer_than_any_is_refused() -> None:
    text = b'{"shape":[1,%b1]}' % (b" " * LONGEST_SHAPE_BYTES)
    with pytest.raises(RefusedError, match="4096 bytes"):
        check_shapes(text, len(text), False, 1000)


def test_shapes_without_an_end_are_not_each_read_to_the_end_of_the_request() -> None:
    """Bytes after a complete JSON value are not scanned, so nesting does not limit how many there are."""
    text = b"{} " + b'"shape":[' * 400_000
    with pytest.raises(RefusedError, match="4096 bytes"):
        check_shapes(text, len(text), False, len(text))
    text = b'{"inputs":[{"shape":[1,2'
    check_shapes(text, len(text), False, len(text))


def test_an_object_of_too_many_members_is_refused() -> None:
    members = [b'"%d":1' % number for number in range(MOST_MEMBERS + 1)]
    most = b"{%b}" % b",".join(members[1:])
    assert len(top_members(most, len(most))) == MOST_MEMBERS
    more = b"{%b}" % b",".join(members)
    with pytest.raises(ValueError, match="members"):
        top_members(more, len(more))


@pytest.mark.parametrize(
    "name", ["tidegate", "Tidegate-Param-x", "TIDEGATE_x", "tide\\u0067ate-param-x", "\\u0054idegate"]
)
@pytest.mark.parametrize("wanted", [PARAMETERS, SEQUENCE_ID])
@pytest.mark.parametrize("filler", ["1", "[" + "1," * 100_000 + "1]"])
def test_names_that_are_the_rules_own_are_refused(name: str, wanted: Any, filler: str) -> None:
    text = f'{{"x":{filler},"parameters":{{"a":1,"{name}":"v"}}}}'.encode()
    with pytest.raises(RefusedError, match="not for callers"):
        examine(text, len(text), len(text), wanted)


def test_what_is_known_of_some_json_holds_for_requests_of_its_size_and_the_name_that_was_looked_for() -> None:
    text = b'{"inputs":[{"name":"x","datatype":"INT8","shape":[500],"parameters":{"binary_data_size":500}}]}'
    for _ in range(2):
        assert not examine(text, len(text), len(text) + 500, SEQUENCE_ID).parameters
        with pytest.raises(RefusedError, match="declare more elements"):
            examine(text, len(text), len(text) + 5, SEQUENCE_ID)
    named = b'{"parameters":{"a":1}}'
    for _ in range(2):
        assert not examine(named, len(named), len(named), SEQUENCE_ID).parameters
        assert dict(examine(named, len(named), len(named), PARAMETERS).parameters) == {"a": 1}
