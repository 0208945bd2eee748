"""The OpenAPI 3.1 descriptions (https://spec.openapis.org/oas/v3.1.1.html): of both APIs, and of one objective with its types.

The first is stored beside this module, and the operators' part of it in `console/`. The second is made from it when it is asked for, so `tidegate.web.openapi_typed` is not
imported before.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from tidegate.oip.metadata import ModelMetadata
from tidegate.rules.contract import Objective

_MOST_KEPT = 64


@functools.cache
def openapi_document() -> bytes:
    """Return the description of both APIs as JSON. The first call reads it from disk."""
    return Path(__file__).with_name("openapi.json").read_bytes()


@functools.cache
def whole_document(*, has_console: bool) -> bytes:
    """Return the description of all that a gateway serves as JSON: both APIs, and with a console the operators' paths of that."""
    if not has_console:
        return openapi_document()
    document = json.loads(openapi_document())
    console = json.loads(Path(__file__).with_name("console").joinpath("openapi.json").read_bytes())
    document["paths"] |= console["paths"]
    document["components"]["schemas"] |= console["components"]["schemas"]
    return json.dumps(document, ensure_ascii=False).encode()


class ObjectiveDocuments:
    """The descriptions of single objectives, of which the 64 that were asked for last are kept."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[ModelMetadata | None, bytes]] = {}

    async def get(
        self,
        metadata: ModelMetadata | None,
        objective: Objective,
        revision: str,
        required_inputs: Callable[[], Awaitable[frozenset[str]]],
    ) -> bytes:
        """Return the description of an objective as JSON, made in a thread.

        Args:
            metadata: the metadata of the objective's model; None while it is unavailable, which leaves tensors without types.
            objective: the objective of the rules `revision`.
            required_inputs: asks for the inputs that a request must have; what it raises is raised here.
        """
        key = (revision, objective.name)
        kept = self._kept.pop(key, None)
        if kept is None or kept[0] != metadata:
            required = frozenset() if metadata is None else await required_inputs()
            kept = metadata, await asyncio.to_thread(_typed, objective, metadata, revision, required)
        self._kept[key] = kept
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]


def _typed(
    objective: Objective, metadata: ModelMetadata | None, revision: str, required_inputs: frozenset[str]
) -> bytes:
    from tidegate.web.openapi_typed import typed_document

    return typed_document(openapi_document(), objective, metadata, revision, required_inputs)
