"""Checks of the shapes that a request declares, since Triton does not check them before it allocates memory.

Triton 2.51 computes a tensor's size modulo 2^64, and allocates that size for a tensor in JSON before it reads the data. A
product that wraps around ends the process of a Python model for good, a large product crashes the server or exhausts its
memory, and a dimension of 0 hides the others from that product but not from NumPy. As every element takes at least a byte of
the request, the declared shapes alone show whether a request is valid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tidegate.errors import RefusedError, malformed

MOST_SHAPES: Final = 10_000
MOST_DIMENSIONS: Final = 64
MOST_BESIDE_ZERO: Final = 2**31
"""The largest product of the dimensions other than 0 of a tensor without elements."""

LONGEST_SHAPE_BYTES: Final = 4096

_LONGEST_SHOWN: Final = 100
_VALUE: Final = rb"[ \t\n\r]*+:[ \t\n\r]*+\["
_PLAIN: Final = re.compile(rb'"shape"' + _VALUE)
_ESCAPED: Final = re.compile(
    b'"' + b"".join(rb"(?:%c|\\u00(?i:%02x))" % (letter, letter) for letter in b"shape") + b'"' + _VALUE
)


def check_shapes(text: bytes, end: int, has_escapes: bool, size_bytes: int) -> bool:
    """Check that the tensors in the JSON of a request can have as many elements as they declare; return whether one has none.

    Args:
        text: begins with the JSON.
        end: where the JSON ends.
        has_escapes: whether names in it may be written with escapes.
        size_bytes: the size of the whole request, inflated.

    Raises:
        RefusedError: the shapes declare more elements than the request has bytes.
    """
    declared, has_empty = 0, False
    for found, match in enumerate((_ESCAPED if has_escapes else _PLAIN).finditer(text, 0, end), 1):
        if found > MOST_SHAPES:
            raise malformed(f"the request declares more than {MOST_SHAPES} shapes")
        start = match.end()
        # Not by the expression: it would read each of many unterminated lists to the end of the request.
        stop = text.find(b"]", start, min(end, start + LONGEST_SHAPE_BYTES))
        if stop < 0:
            if start + LONGEST_SHAPE_BYTES >= end:
                # The list is unterminated, so Triton cannot parse the request.
                return has_empty
            raise malformed(f"a shape in the request is longer than {LONGEST_SHAPE_BYTES} bytes")
        elements = _elements(text[start:stop])
        has_empty = has_empty or not elements
        declared += elements
        check_declared(declared, size_bytes)
    return has_empty


def check_declared(elements: int, size_bytes: int) -> None:
    """Check that a request is large enough for the elements of all its inputs together.

    Raises:
        RefusedError: it is not.
    """
    if elements > size_bytes:
        raise malformed(f"the shapes of the inputs declare more elements than the request has bytes ({size_bytes})")


def count_elements(shape: Sequence[int]) -> int:
    """Count the elements of a tensor.

    Raises:
        RefusedError: the shape would crash a server.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise _too_long()
    product, is_empty = 1, False
    for size in shape:
        if size > 0:
            product *= size
        else:
            is_empty = True
    if not is_empty:
        return product
    if product > MOST_BESIDE_ZERO:
        shown = ",".join(map(str, shape))[:_LONGEST_SHOWN]
        raise malformed(
            f"an input has the shape [{shown}], whose dimensions beside 0 have a product of more than {MOST_BESIDE_ZERO}"
        )
    return 0


def _elements(shape: bytes) -> int:
    """Count the elements of a tensor of that shape; 0 if Triton itself refuses it, as it is not a list of numbers."""
    sizes = shape.split(b",", MOST_DIMENSIONS)
    if len(sizes) > MOST_DIMENSIONS:
        raise _too_long()
    try:
        return count_elements(list(map(int, sizes)))
    except ValueError:
        return 0


def _too_long() -> RefusedError:
    return malformed(f"an input has a shape of more than {MOST_DIMENSIONS} dimensions")
