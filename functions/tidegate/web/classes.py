"""Outputs that a caller wants as classes (Triton's classification extension), where a server can make them.

Triton 2.51 ends when it is to make classes of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tidegate.rules.decision import Decision
from tidegate.web.errors import malformed
from tidegate.web.metadata import MetadataCache

_MAX_AGE_S = 1.0


async def check_classes(
    metadata: MetadataCache, decision: Decision, outputs: Sequence[str], deadline_s: float
) -> Decision:
    """The decision to carry out where a request wants classes: without its fallbacks, whose outputs may be others.

    Raises:
        DispatchError: nobody says what the outputs are.
        WebError: one of `outputs` is text (400), or the model says nothing readable.
    """
    alone = replace(decision, fallbacks=())
    known = await metadata.get(alone, deadline_s, _MAX_AGE_S)
    for tensor in known.outputs:
        if tensor.datatype == "BYTES" and tensor.name in outputs:
            raise malformed(
                f"output {tensor.name!r} is text (BYTES), of which no classes are made: ask for it as it is"
            )
    return alone
