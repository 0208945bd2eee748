"""The OpenAPI description of one objective: its paths of `/v1`, with the types of its context, inputs and outputs.

Generators of clients make a class of each schema here. Types are JSON Schema 2020-12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from tidegate.oip.datatypes import FLOATS
from tidegate.oip.metadata import ModelMetadata, Tensor
from tidegate.rules.contract import Attribute, Objective, Responses
from tidegate.rules.values import MAX_VERSION_LENGTH, VERSION_PATTERN
from tidegate.web.http import compact

Schema = dict[str, Any]

_OF_OBJECTIVE = "/v1/objectives/{objective}"
_PREFIX = "#/components/"
_UNAVAILABLE = "**Its model is unavailable now, so `inputs` and `outputs` have no types here: ask again later.**"
_INTEGER = re.compile(r"(U?)INT(8|16|32|64)")
_FORMATS = {"FP32": "float", "FP64": "double", "INT32": "int32", "INT64": "int64"}
_TYPES: dict[str, Schema] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "version": {"type": "string", "pattern": f"^{VERSION_PATTERN}$", "maxLength": MAX_VERSION_LENGTH},
}


def typed_document(
    both: bytes,
    objective: Objective,
    metadata: ModelMetadata | None,
    revision: str,
    required_inputs: Collection[str],
) -> bytes:
    """Return the description of an objective as JSON.

    Args:
        both: the description of both APIs, from which it is made.
        objective: the objective of the rules `revision`.
        metadata: the metadata of its model; None while it is unavailable, which leaves tensors without types.
        required_inputs: the inputs that a request must have.
    """
    document: dict[str, Any] = json.loads(both)
    streams = objective.responses is Responses.STREAM
    other = f"{_OF_OBJECTIVE}/{'infer' if streams else 'stream'}"
    document["paths"] = {
        path.replace("{objective}", objective.name): _without_objective(item)
        for path, item in document["paths"].items()
        if path.startswith(_OF_OBJECTIVE) and path != other
    }
    about = [objective.summary, f"Owner: {objective.owner}. Rules: {revision}."]
    if metadata is None:
        about.append(_UNAVAILABLE)
    document["info"] |= {"title": f"Tidegate: {objective.name}", "description": "\n\n".join(about)}
    schemas: dict[str, Schema] = document["components"]["schemas"]
    schemas["Context"] = _context(objective)
    schemas["Inputs"], schemas["Outputs"] = _tensors(metadata, streams, required_inputs)
    for name in ("InferRequest", "ResolveRequest"):
        schemas[name]["properties"]["context"] = _to_schema("Context")
        if "required" in schemas["Context"]:
            schemas[name]["required"] = ["context"]
    if "required" in schemas["Inputs"]:
        schemas["InferRequest"].setdefault("required", []).append("inputs")
    schemas["InferRequest"]["properties"]["inputs"] = _to_schema("Inputs")
    schemas["InferAnswer"]["properties"]["outputs"] = _to_schema("Outputs")
    document["components"] = _reached(document, [_to_schema("Outputs")])
    return compact(document)


def _without_objective(item: Schema) -> Schema:
    """Return a path's item without the parameter that its path names no longer."""
    named = {"$ref": f"{_PREFIX}parameters/objective"}
    return {
        method: {**operation, "parameters": [each for each in operation["parameters"] if each != named]}
        for method, operation in item.items()
    }


def _context(objective: Objective) -> Schema:
    properties = {attribute.name: _attribute(attribute) for attribute in objective.attributes.values()}
    if objective.allocations:
        cell = {"type": ["integer", "string"]}
        properties["allocations"] = {
            "type": "object",
            "description": "the cell of each experiment that the caller allocates, by the experiment's id",
            "properties": dict.fromkeys(objective.allocations, cell),
            "additionalProperties": cell,
        }
    schema: Schema = {"type": "object", "properties": properties}
    # An attribute with a header may be missing here.
    required = [each.name for each in objective.attributes.values() if each.required and each.header is None]
    if required:
        schema["required"] = required
    if objective.refuses_unknown:
        schema["additionalProperties"] = False
    return schema


def _attribute(attribute: Attribute) -> Schema:
    values = None if attribute.values is None else list(attribute.values)
    notes = [] if attribute.header is None else [f"the header {attribute.header} gives it where it is missing"]
    if attribute.type == "set":
        items = {"type": "string"} if values is None else {"type": "string", "enum": values}
        schema: Schema = {"type": "array", "items": items}
    else:
        schema = dict(_TYPES[attribute.type])
        if values is not None and attribute.type == "version":
            # "8.2" and "8.2.0" are one version, which an enumeration cannot say.
            notes.append(f"one of {', '.join(map(str, values))}")
        elif values is not None and attribute.type in ("number", "boolean"):
            # Generators make classes of enumerations, and know none of these types.
            schema = {"anyOf": [{**schema, "const": value} for value in values]}
        elif values is not None:
            schema["enum"] = values
    # A generated client sends defaults, which would take the place of a header.
    if (default := attribute.default) is not None and attribute.header is None:
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return {**schema, "description": "; ".join(notes)} if notes else schema


def _tensors(metadata: ModelMetadata | None, streams: bool, required_inputs: Collection[str]) -> tuple[Schema, Schema]:
    """Return the schemas of the inputs and of the outputs."""
    if metadata is None:
        untyped = {"type": "object", "description": f"Nested lists by name. {_UNAVAILABLE}"}
        return untyped, untyped
    inputs: Schema = {
        "type": "object",
        "properties": {tensor.name: _input(tensor) for tensor in metadata.inputs},
        "additionalProperties": False,
    }
    if required := [tensor.name for tensor in metadata.inputs if tensor.name in required_inputs]:
        inputs["required"] = required
    outputs = {
        "type": "object",
        "description": "A value or a flat list of each response." if streams else "Nested lists in the shape.",
        "properties": {tensor.name: _output(tensor, streams) for tensor in metadata.outputs},
        "required": [tensor.name for tensor in metadata.outputs],
    }
    return inputs, outputs


def _input(tensor: Tensor) -> Schema:
    """Return the schema of an input: `encode_inputs` adds leading dimensions of 1 that are missing."""
    item, shape = _item(tensor.datatype), tensor.shape
    missing = next((count for count, size in enumerate(shape) if size not in (-1, 1)), len(shape))
    forms = [_nested(item, shape[count:], is_whole=count == 0) for count in range(missing, -1, -1)]
    return {**(forms[0] if len(forms) == 1 else {"anyOf": forms}), "description": _words(tensor)}


def _output(tensor: Tensor, streams: bool) -> Schema:
    item = _item(tensor.datatype)
    if streams:
        return {"anyOf": [item, {"type": "array", "items": item}], "description": _words(tensor)}
    schema = item
    for _ in tensor.shape:
        schema = {"type": "array", "items": schema}
    return {**schema, "description": _words(tensor)}


def _nested(item: Schema, shape: tuple[int, ...], is_whole: bool) -> Schema:
    """Return the schema of nested lists of a shape. Only the innermost may be empty, and only where no dimension is missing."""
    schema = item
    for depth, size in enumerate(reversed(shape)):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
        elif depth or not is_whole:
            schema["minItems"] = 1
    return schema


def _item(datatype: str) -> Schema:
    """Return the schema of one element; any value where JSON has no such datatype."""
    if datatype in _FORMATS:
        return {"type": "number" if datatype in FLOATS else "integer", "format": _FORMATS[datatype]}
    if match := _INTEGER.fullmatch(datatype):
        bits, is_signed = int(match[2]), not match[1]
        least = -(1 << bits - 1) if is_signed else 0
        return {"type": "integer", "minimum": least, "maximum": least + (1 << bits) - 1}
    if datatype in FLOATS:
        return {"type": "number"}
    return {"BOOL": {"type": "boolean"}, "BYTES": {"type": "string"}}.get(datatype, {})


def _words(tensor: Tensor) -> str:
    return f"{tensor.datatype}, shape {list(tensor.shape)}".replace("-1", "any")


def _to_schema(name: str) -> Schema:
    return {"$ref": f"{_PREFIX}schemas/{name}"}


def _reached(document: dict[str, Any], also: list[Schema]) -> dict[str, dict[str, Any]]:
    """Return the components that the paths refer to, and `also`, directly or not."""
    components: dict[str, dict[str, Any]] = document["components"]
    reached: set[str] = set()
    new = set(_references([document["paths"], also]))
    while new:
        reached |= new
        parts = (each.removeprefix(_PREFIX).split("/", 1) for each in new)
        new = set(_references([components[kind][name] for kind, name in parts])) - reached
    kept = {
        kind: {name: part for name, part in parts.items() if f"{_PREFIX}{kind}/{name}" in reached}
        for kind, parts in components.items()
    }
    return {kind: parts for kind, parts in kept.items() if parts}


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str):
            yield reference
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _references(each)
