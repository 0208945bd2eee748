"""Where a request over HTTP has its `sequence_id`, and another one in its place. The rest of the bytes stays as it is."""

from __future__ import annotations

import json

from tidegate.errors import malformed
from tidegate.oip.json_walk import top_members


def sequence_id_at(text: bytes, end: int) -> tuple[int, int]:
    """Return the start and the end of the value of `sequence_id` in a request.

    Args:
        text: begins with the JSON, whose `parameters` have a `sequence_id`.
        end: where the JSON ends.

    Raises:
        RefusedError: a server might find another value.
    """
    try:
        start, stop = top_members(text, end)["parameters"]
        at, until = top_members(text[start:stop], stop - start)["sequence_id"]
    except (ValueError, KeyError):
        raise malformed("the JSON of the request cannot be read for its sequence_id") from None
    return start + at, start + until


def with_sequence_id(body: bytes, at: tuple[int, int], sequence_id: int | str) -> bytes:
    """Return an uncompressed request with `sequence_id` in place of the value at `at`."""
    view = memoryview(body)
    return b"".join((view[: at[0]], json.dumps(sequence_id).encode(), view[at[1] :]))
