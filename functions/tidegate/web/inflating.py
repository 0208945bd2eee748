"""The JSON of compressed requests, which may hold context and a sequence. What goes to Triton stays compressed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tidegate.web.errors import malformed
from tidegate.web.http import RawHeaders, content_codings, header_values
from tidegate.web.json_names import JsonName

MOST_READ_BYTES = 8 * 1024 * 1024
"""Most of a compressed request's JSON that is parsed."""

MOST_INFLATED_BYTES = 64 * 1024 * 1024
"""Most of a compressed request's JSON that is looked through for what has to be parsed."""

_PIECE_BYTES = 64 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def inflated(headers: RawHeaders, body: bytes, wanted: JsonName) -> bytes:
    """The JSON of a compressed request where it contains `wanted`; else nothing. It blocks, for tenths of a second where a body
    inflates to much.

    What is not compressed as its headers say is left to Triton, which refuses it.

    Raises:
        WebError: the JSON has to be parsed and is larger than that, or is larger than is looked through.
    """
    if content_codings(headers) not in ([b"gzip"], [b"deflate"]):
        return b""
    most = _json_bytes(headers)
    kept, size, before, is_named = bytearray(), 0, b"", False
    for chunk in _inflated(body):
        piece = chunk[: most - size]
        size += len(piece)
        if size <= MOST_READ_BYTES:
            kept += piece
        seen = before + piece
        is_named = is_named or wanted.is_in(seen, len(seen))
        before = seen[-wanted.longest_bytes :]
        if size > MOST_INFLATED_BYTES or (is_named and size > MOST_READ_BYTES):
            limit = MOST_READ_BYTES if is_named else MOST_INFLATED_BYTES
            raise malformed(
                f"the JSON of the request inflates to more than {limit} bytes, and may hold context or a sequence_id: send it "
                "uncompressed, or its tensors in binary"
            )
        if size >= most:
            break
    return bytes(kept) if is_named else b""


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
