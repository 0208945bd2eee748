"""Decompression of request bodies, within limits, to examine them. Triton gets the compressed body."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tidegate.errors import RefusedError, malformed

MOST_INFLATED_BYTES = 64 * 1024 * 1024
"""The most that a request may inflate to, as Triton 2.51 has no limit of its own."""

_FED_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def inflated(body: bytes, most_bytes: int) -> bytes | None:
    """Return a gzip or zlib body decompressed; None if that is more than `most_bytes`.

    Bytes from a malformed part on are left out; Triton refuses such a body.
    """
    pieces, size_bytes = [], 0
    for piece in _inflated(body):
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            return None
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def inflated_whole(body: bytes, most_bytes: int) -> bytes | None:
    """Return a gzip or zlib body decompressed; None if that is more than `most_bytes`.

    Raises:
        RefusedError: a part of the body is malformed, or its end is missing.
    """
    pieces, size_bytes = [], 0
    for piece in _inflated(body, is_strict=True):
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def too_inflated() -> RefusedError:
    return malformed(
        f"the request inflates to more than {MOST_INFLATED_BYTES} bytes: send it uncompressed, or in parts"
    )


def _inflated(body: bytes, *, is_strict: bool = False) -> Iterator[bytes]:
    """Yield a body decompressed, piece by piece. zlib is fed slices, since it copies input that it has not read yet.

    Raises:
        RefusedError: the body is strict, and a part of it is malformed or its end is missing.
    """
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    is_whole = False
    for start in range(0, len(body), _FED_BYTES):
        fed = body[start : start + _FED_BYTES]
        while fed:
            try:
                piece = inflater.decompress(fed, _PIECE_BYTES)
            except zlib.error:
                if is_strict:
                    raise _damaged() from None
                return
            is_whole = inflater.eof
            if piece:
                yield piece
            fed = inflater.unconsumed_tail
            if inflater.eof:
                fed = inflater.unused_data
                inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
            elif not piece and not fed:
                break
    if is_strict and not is_whole:
        raise _damaged()


def _damaged() -> RefusedError:
    return malformed("the body cannot be decompressed as its Content-Encoding says")
