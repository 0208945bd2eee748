"""The context of a request to `/v2`, attribute by attribute.

An attribute comes from the `Tidegate-Context` header, or from the request's `parameters` when that header is absent.
Failing that, it comes from the header that the objective declares for it. The tensors are never read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as ItemSequence
from typing import Any, Final

from tidegate.errors import ContextError, malformed
from tidegate.gateway.bindings import Sequence
from tidegate.gateway.sequences import check_sequence_id, check_text_id
from tidegate.oip.request_json import PARAMETERS, SEQUENCE_ID, JsonName
from tidegate.rules.contract import Objective
from tidegate.rules.text import parse_text
from tidegate.strict_json import UnreadableError, parse
from tidegate.web.head import RequestHead
from tidegate.web.http import RawHeaders, header_values

_CONTEXT: Final = b"tidegate-context"
_SEQUENCE: Final = b"tidegate-sequence"
_ALLOCATIONS: Final = "allocations"


class OipContext:
    """A request's context, and its place in a sequence (None for most)."""

    def __init__(self, values: Mapping[str, Any], sequence: Sequence | None) -> None:
        self.values: Final = values
        self.sequence: Final = sequence


def name_to_read(objective: Objective, head: RequestHead) -> JsonName:
    """Return the name that makes the gateway parse the JSON of a request to `/v2` that contains it."""
    reads = (objective.attributes or objective.allocations) and not head.values(_CONTEXT)
    # A sequence that only the header names may still say in the body that it starts or ends.
    return PARAMETERS if reads or head.values(_SEQUENCE) else SEQUENCE_ID


def oip_context(
    objective: Objective, head: RequestHead, values: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> OipContext:
    """Build the context of a request to `/v2`.

    Args:
        objective: the requested objective.
        head: the request's headers.
        values: the result of `context_header`.
        parameters: the parameters in the request's body; attributes are read from them only where `values` is None.

    Raises:
        ContextError: a text is not a value of its attribute's type.
        RefusedError: `sequence_id` or `Tidegate-Sequence` is malformed.
    """
    if values is None:
        values = _from_parameters(objective, parameters)
    sequence = _sequence(head, parameters) if parameters or head.values(_SEQUENCE) else None
    return OipContext(with_declared_headers(objective, head.headers, values), sequence)


def context_header(head: RequestHead) -> dict[str, Any] | None:
    """Return the JSON object in `Tidegate-Context`, or None without that header.

    Raises:
        RefusedError: the header is not one JSON object in UTF-8, or is sent more than once.
    """
    found = head.values(_CONTEXT)
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
    """Return `values`, completed from the headers that the objective declares for missing attributes.

    Raises:
        ContextError: a header's text is not a value of its attribute's type.
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


def _sequence(head: RequestHead, parameters: Mapping[str, Any]) -> Sequence | None:
    sequence_id = parameters.get("sequence_id")
    # Triton reads 0 and the empty string as "no sequence".
    given = check_sequence_id(sequence_id) if sequence_id else None
    name = None if given is None else str(given)
    if named := head.values(_SEQUENCE):
        name = _named(named, name)
    if name is None:
        return None
    starts, ends = parameters.get("sequence_start") is True, parameters.get("sequence_end") is True
    return Sequence(name, starts, ends, given=given)


def _named(named: ItemSequence[bytes], in_body: str | None) -> str:
    """Return the id in `Tidegate-Sequence`, which must be that of the body if the body has one."""
    name = _text(named[0])
    if len(named) > 1 or not name:
        raise malformed("the header Tidegate-Sequence must be sent once, with an id", header="Tidegate-Sequence")
    check_text_id(name)
    if in_body is not None and in_body != name:
        detail = "the header Tidegate-Sequence names another sequence than the request's sequence_id"
        raise malformed(detail, header="Tidegate-Sequence")
    return name


def _allocations(value: Any) -> Any:
    # The protocol's parameters are scalars, so allocations are sent as a JSON object in a string.
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
