"""Compressed requests are inflated to be looked at, within bounds. What goes to Triton stays compressed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tidegate.web.errors import WebError, malformed

MOST_INFLATED_BYTES = 64 * 1024 * 1024
"""Most that a request may inflate to: Triton 2.51 inflates without a limit."""

_FED_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def inflated(body: bytes, most_bytes: int) -> bytes | None:
    """What a body in gzip's or zlib's form inflates to; None where that is more than `most_bytes`.

    What is not in that form is left out; Triton refuses such a body.
    """
    pieces, size_bytes = [], 0
    for piece in _inflated(body):
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            return None
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def too_inflated() -> WebError:
    """A request that inflates to more than the limit (400)."""
    return malformed(
        f"the request inflates to more than {MOST_INFLATED_BYTES} bytes: send it uncompressed, or in parts"
    )


def _inflated(body: bytes) -> Iterator[bytes]:
    """What a body inflates to, piece by piece. It is fed in slices: zlib copies what it was given and has not read yet."""
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    for start in range(0, len(body), _FED_BYTES):
        fed = body[start : start + _FED_BYTES]
        while fed:
            try:
                piece = inflater.decompress(fed, _PIECE_BYTES)
            except zlib.error:
                return
            if piece:
                yield piece
            fed = inflater.unconsumed_tail
            if inflater.eof:
                fed = inflater.unused_data
                inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
            elif not piece and not fed:
                break
