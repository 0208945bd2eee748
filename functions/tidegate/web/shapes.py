"""The shapes that a request declares, checked before a server acts on them.

Triton 2.51 computes a tensor's size modulo 2^64 and allocates what the shape of a tensor in JSON asks for before it looks at
the data. A shape whose product wraps around ends the process of a Python model for good, one whose product is large ends the
server or takes all of its memory, and a dimension of 0 hides the others from that product but not from NumPy. Yet every
element takes a byte of the request at least, so a request can be told from its shapes alone.
"""

from __future__ import annotations

import re

from tidegate.web.errors import WebError, malformed

MOST_SHAPES = 10_000
MOST_DIMENSIONS = 64
MOST_BESIDE_ZERO = 2**31
"""Largest product of the dimensions of a tensor without elements, leaving those that are 0 out."""

LONGEST_SHAPE_BYTES = 4096

_LONGEST_SHOWN = 100
_VALUE = rb"[ \t\n\r]*+:[ \t\n\r]*+\["
_PLAIN = re.compile(rb'"shape"' + _VALUE)
_ESCAPED = re.compile(
    b'"' + b"".join(rb"(?:%c|\\u00(?i:%02x))" % (letter, letter) for letter in b"shape") + b'"' + _VALUE
)


def check_shapes(text: bytes, end: int, has_escapes: bool, size_bytes: int) -> None:
    """Check that the tensors in the JSON of a request can have as many elements as they say.

    Args:
        text: begins with the JSON.
        end: where the JSON ends.
        has_escapes: whether names in it may be written with escapes.
        size_bytes: the size of the whole request, inflated.

    Raises:
        WebError: the shapes declare more elements than the request has bytes (400).
    """
    declared = 0
    for found, match in enumerate((_ESCAPED if has_escapes else _PLAIN).finditer(text, 0, end), 1):
        if found > MOST_SHAPES:
            raise malformed(f"the request declares more than {MOST_SHAPES} shapes")
        start = match.end()
        # Not by the expression: many lists without an end would each be read to the end of the request.
        stop = text.find(b"]", start, min(end, start + LONGEST_SHAPE_BYTES))
        if stop < 0:
            if start + LONGEST_SHAPE_BYTES >= end:
                # It ends nowhere, so that Triton reads neither it nor what follows.
                return
            raise malformed(f"a shape in the request is longer than {LONGEST_SHAPE_BYTES} bytes")
        shape = text[start:stop]
        declared += _elements(shape)
        if declared > size_bytes:
            raise _refused(shape, f"and all inputs together more elements than the request has bytes ({size_bytes})")


def _elements(shape: bytes) -> int:
    """How many elements a tensor of that shape has; 0 where Triton refuses the shape by itself, as no list of numbers."""
    sizes = shape.split(b",", MOST_DIMENSIONS)
    if len(sizes) > MOST_DIMENSIONS:
        raise _refused(shape, f"of more than {MOST_DIMENSIONS} dimensions")
    product, is_empty = 1, False
    for text in sizes:
        try:
            size = int(text)
        except ValueError:
            return 0
        if size > 0:
            product *= size
        else:
            is_empty = True
    if not is_empty:
        return product
    if product > MOST_BESIDE_ZERO:
        raise _refused(shape, f"whose dimensions beside 0 have a product of more than {MOST_BESIDE_ZERO}")
    return 0


def _refused(shape: bytes, why: str) -> WebError:
    shown = shape[:_LONGEST_SHOWN].decode("ascii", "replace")
    return malformed(f"an input has the shape [{shown}], {why}")
