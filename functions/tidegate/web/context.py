"""Where a request's context comes from on `/v2`, attribute by attribute.

The `Tidegate-Context` header; else, and only when that header is absent, the request's `parameters`; else the header
that the objective declares for the attribute. The tensors are never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ContextError
from tidegate.rules.contract import Objective
from tidegate.rules.text import parse_text
from tidegate.web.errors import malformed
from tidegate.web.http import RawHeaders, header_values
from tidegate.web.json_body import UnreadableError, parse
from tidegate.web.json_names import PARAMETERS, SEQUENCE_ID, JsonName
from tidegate.web.sequences import check_sequence_id

_CONTEXT = b"tidegate-context"
_ALLOCATIONS = "allocations"


@dataclass(frozen=True, slots=True)
class OipContext:
    """A request's context, and the sequence that it belongs to (None for most)."""

    values: Mapping[str, Any]
    sequence_id: str | None


def name_to_read(objective: Objective, headers: RawHeaders) -> JsonName:
    """What the JSON of a request to `/v2` contains where it has to be parsed."""
    reads = (objective.attributes or objective.allocations) and not header_values(headers, _CONTEXT)
    return PARAMETERS if reads else SEQUENCE_ID


def oip_context(
    objective: Objective, headers: RawHeaders, values: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> OipContext:
    """The context of a request to `/v2`.

    Args:
        objective: the objective that is asked for.
        headers: the request's headers.
        values: what `context_header` found.
        parameters: those of the request's body; they count only where `values` are None.

    Raises:
        ContextError: a text does not stand for a value of its attribute.
        WebError: `sequence_id` is malformed.
    """
    if values is None:
        values = _from_parameters(objective, parameters)
    sequence_id = parameters.get("sequence_id")
    if isinstance(sequence_id, str):
        check_sequence_id(sequence_id)
    context = with_declared_headers(objective, headers, values)
    # Triton takes 0 and empty text for "no sequence".
    return OipContext(context, str(sequence_id) if sequence_id else None)


def context_header(headers: RawHeaders) -> dict[str, Any] | None:
    """The JSON object in `Tidegate-Context`, or None without that header.

    Raises:
        WebError: the header is not one JSON object in UTF-8, or is sent twice.
    """
    found = header_values(headers, _CONTEXT)
    if not found:
        return None
    if len(found) > 1:
        raise malformed("the header Tidegate-Context must be sent once", header="Tidegate-Context")
    wanted = "the header Tidegate-Context must be one JSON object in UTF-8"
    try:
        values = parse(found[0])
    except UnreadableError as error:
        raise malformed(f"{wanted}: {error}", header="Tidegate-Context") from None
    if not isinstance(values, dict):
        raise malformed(wanted, header="Tidegate-Context")
    return values


def with_declared_headers(objective: Objective, headers: RawHeaders, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values`, and for each attribute that is absent from them the header that the objective declares for it.

    Raises:
        ContextError: a header's text does not stand for a value of its attribute.
    """
    added: dict[str, Any] = {}
    for attribute in objective.attributes.values():
        if attribute.header is None or attribute.name in values:
            continue
        found = header_values(headers, attribute.header.encode("latin-1", "replace"))
        if found:
            added[attribute.name] = parse_text(attribute, _text(b",".join(found)))
    return {**values, **added} if added else values


def _from_parameters(objective: Objective, parameters: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        attribute = objective.attributes.get(name)
        if attribute is not None:
            if isinstance(value, float) and not math.isfinite(value):
                raise ContextError(name, f"the parameter {name!r} must be a finite number")
            values[name] = parse_text(attribute, value) if isinstance(value, str) else value
        elif name == _ALLOCATIONS:
            values[name] = _allocations(value)
    return values


def _allocations(value: Any) -> Any:
    """A parameter is a scalar, so allocations come as a JSON object in text."""
    if not isinstance(value, str):
        return value
    try:
        allocations = parse(value)
    except UnreadableError:
        allocations = None
    if not isinstance(allocations, dict):
        raise ContextError(_ALLOCATIONS, "the parameter 'allocations' must be a JSON object as text")
    return allocations


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
