"""A request's `sequence_id`, of which nothing reaches Triton that ends it.

Triton 2.51 writes a text id with 4 bytes for its length into the 4 or 8 bytes of a numeric CORRID control, and so beyond
them. What the allocator adds takes 20 bytes of text, and one of 21 ends the server. Which control a model, or a step of it, has
is not known here, so the limit is for all.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tidegate.web.errors import malformed
from tidegate.web.http import RawHeaders, content_codings, header_values
from tidegate.web.json_names import SEQUENCE_ID

LONGEST_SEQUENCE_ID_BYTES = 20
MOST_INFLATED_BYTES = 64 * 1024 * 1024
"""Most of a compressed request that is looked through."""

_PIECE_BYTES = 64 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def check_sequence_id(text: str) -> None:
    """Refuse a text id that could end a server.

    Raises:
        WebError: it is too long.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_SEQUENCE_ID_BYTES:
        raise malformed(
            f"the sequence_id is a text of more than {LONGEST_SEQUENCE_ID_BYTES} bytes: send a number, or a shorter text"
        )


def check_compressed(headers: RawHeaders, body: bytes) -> None:
    """Refuse a compressed request that names a sequence: unread it cannot be sent to that one's endpoint. It blocks, for
    tenths of a second where a body inflates to much.

    What is not compressed as its headers say is left to Triton, which refuses it.

    Raises:
        WebError: its JSON names a sequence, or inflates to more than is looked through.
    """
    if content_codings(headers) not in ([b"gzip"], [b"deflate"]):
        return
    left, before = _json_bytes(headers), b""
    for chunk in _inflated(body):
        seen = before + chunk[: max(0, left)]
        if SEQUENCE_ID.is_in(seen, len(seen)):
            raise malformed("a compressed request cannot name a sequence_id: send it uncompressed")
        before, left = seen[-SEQUENCE_ID.longest_bytes :], left - len(chunk)
        if left <= 0:
            break
    if left <= 0 and _json_bytes(headers) > MOST_INFLATED_BYTES:
        raise malformed(
            f"the JSON of the request inflates to more than {MOST_INFLATED_BYTES} bytes: send it uncompressed, or its "
            "tensors in binary"
        )


def _json_bytes(headers: RawHeaders) -> int:
    """Bytes of inflated JSON to look through: those in front of the tensors, where the headers say so, else all; at most one
    more than the limit."""
    lengths = header_values(headers, b"inference-header-content-length")
    text = lengths[0] if len(lengths) == 1 else b""
    stated = int(text) if text.isdigit() and len(text) <= 18 else MOST_INFLATED_BYTES + 1
    return min(stated, MOST_INFLATED_BYTES + 1)


def _inflated(body: bytes) -> Iterator[bytes]:
    """What a body in gzip's or zlib's form inflates to, piece by piece, as far as it is in that form."""
    while body:
        inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
        while not inflater.eof:
            try:
                piece = inflater.decompress(body, _PIECE_BYTES)
            except zlib.error:
                return
            body = inflater.unconsumed_tail
            if not piece and not inflater.eof:
                return
            yield piece
        body = inflater.unused_data
