"""The OpenAPI 3.1 description of both APIs (https://spec.openapis.org/oas/v3.1.1.html)."""

from __future__ import annotations

from typing import Any

from tidegate import __version__

_Json = dict[str, Any]


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: _Json, required: tuple[str, ...] = (), **more: Any) -> _Json:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def _array(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _nullable(kind: str) -> _Json:
    return {"type": [kind, "null"]}


def _content(schema: _Json, media_type: str = "application/json") -> _Json:
    return {media_type: {"schema": schema}}


def _path(name: str, schema: _Json) -> _Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header(name: str, description: str, schema: _Json | None = None) -> _Json:
    return {"name": name, "in": "header", "description": description, "schema": schema or {"type": "string"}}


_TEXT: _Json = {"type": "string"}
_INTEGER: _Json = {"type": "integer"}
_BOOLEAN: _Json = {"type": "boolean"}
_ANY: _Json = {}
_OBJECTIVE = _path("objective", {**_TEXT, "description": "the business use case"})
_VERSION = _path("version", {"type": "string", "pattern": "^[0-9]+$"})
_EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "`true` adds the trace of every rule",
    "schema": _BOOLEAN,
}
_TIMEOUT = _header(
    "Tidegate-Timeout-Ms", "how long the caller will wait, in milliseconds", {"type": "number", "exclusiveMinimum": 0}
)
_CONTEXT = _header("Tidegate-Context", "the context as one JSON object in UTF-8")
_CALLER = _header("Tidegate-Caller", "the caller's name, where no authorizer gives it")
_OVERRIDE = _header(
    "Tidegate-Override",
    "the target that serves instead of the rules' choice: model or model/version; needs a grant",
    {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}(/[1-9][0-9]{0,17})?$"},
)
_DECIDED = {
    name: {"description": description, "schema": _TEXT}
    for name, description in {
        "Tidegate-Rule": "the rule that decided",
        "Tidegate-Model": "the model that answered",
        "Tidegate-Model-Version": "its version, where the rules pin one",
        "Tidegate-Shard": "the shard that answered",
        "Tidegate-Variant": "what a split or an experiment picked",
        "Tidegate-Cell": "the experiment's cell",
        "Tidegate-Revision": "the digest of the rules",
        "Tidegate-Reason": "serve, split, experiment, no_sticky_key, override or fallback",
        "Server-Timing": "decide, dispatch and triton, in milliseconds",
    }.items()
}

_TARGET = {"target": _TEXT, "model": _TEXT, "version": _nullable("integer"), "shards": _array(_TEXT)}
_PLACE = {
    "routing_key": {**_TEXT, "description": "the shard that a proxy routes on"},
    "path": {**_TEXT, "description": "the inference path on any of the endpoints"},
    "endpoints": _array(_object({"shard": _TEXT, "url": _TEXT}, ("shard", "url"))),
}
_TENSOR = _object({"name": _TEXT, "datatype": _TEXT, "shape": _array(_INTEGER)}, ("name", "datatype", "shape"))
_ATTRIBUTE = _object(
    {
        "name": _TEXT,
        "type": {"enum": ["string", "integer", "number", "boolean", "version", "set"]},
        "required": _BOOLEAN,
        "values": {"type": ["array", "null"]},
        "default": _ANY,
        "header": _nullable("string"),
    },
    ("name", "type", "required"),
)
_DECISION = _object(
    {
        "objective": _TEXT,
        "rule": _TEXT,
        **_TARGET,
        "variant": _nullable("string"),
        "experiment": _nullable("string"),
        "cell": {"type": ["integer", "string", "null"]},
        "parameters": {"type": "object"},
        "fallbacks": _array(_object(_TARGET)),
        "shadows": _array(_object({**_TARGET, "percent": {"type": "number"}})),
        "timeout_ms": _nullable("integer"),
        "hedge_after_ms": _nullable("integer"),
        "reason": {"enum": ["serve", "split", "experiment", "no_sticky_key", "override"]},
        "revision": _TEXT,
        "served_by": _object({"model": _TEXT, "version": _nullable("integer"), "shard": _TEXT, "fallback": _BOOLEAN}),
    },
    ("objective", "rule", "target", "model", "reason", "revision"),
)
_SCHEMAS: _Json = {
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": _INTEGER, "detail": _TEXT},
        ("type", "title", "status", "detail"),
        description="a problem document (RFC 9457); `attribute` or `input` names the culprit where there is one",
    ),
    "OipError": _object({"error": _TEXT}, ("error",)),
    "Tensor": _TENSOR,
    "Decision": _DECISION,
    "Explanation": {
        "type": "object",
        "description": "the trace of every rule, the arithmetic of a sticky choice, and the attributes that were ignored",
    },
    "InferRequest": _object(
        {
            "context": {"type": "object", "description": "attributes by name; `allocations` holds cells by experiment"},
            "inputs": {"type": "object", "description": "values or nested lists by input name"},
        },
        additionalProperties=False,
    ),
    "InferAnswer": _object(
        {
            "outputs": {"type": "object", "description": "nested lists by output name"},
            "decision": _ref("Decision"),
            "explanation": _ref("Explanation"),
        },
        ("outputs", "decision"),
    ),
    "ResolveRequest": _object({"context": {"type": "object"}}, additionalProperties=False),
    "Resolution": _object(
        {
            "decision": _ref("Decision"),
            **_PLACE,
            "fallbacks": _array(_object({"target": _TEXT, **_PLACE})),
            "revision": _TEXT,
            "cache_ttl_ms": _INTEGER,
            "explanation": _ref("Explanation"),
        },
        ("decision", *_PLACE, "fallbacks", "revision", "cache_ttl_ms"),
    ),
    "Objectives": _object(
        {"objectives": _array(_object({"name": _TEXT, "summary": _TEXT, "owner": _TEXT})), "revision": _TEXT},
        ("objectives", "revision"),
    ),
    "Objective": _object(
        {
            "name": _TEXT,
            "summary": _TEXT,
            "owner": _TEXT,
            "attributes": _array(_ATTRIBUTE),
            "unknown_attributes": {"type": "string", "enum": ["ignore", "refuse"]},
            "allocations": _array(_TEXT),
            "sticky_key": _array(_TEXT),
            "timeout_ms": _nullable("integer"),
            "inputs": {"type": ["array", "null"], "items": _ref("Tensor")},
            "outputs": {"type": ["array", "null"], "items": _ref("Tensor")},
            "revision": _TEXT,
        },
        ("name", "summary", "owner", "attributes", "inputs", "outputs", "revision"),
    ),
    "ServerMetadata": _object(
        {"name": _TEXT, "version": _TEXT, "extensions": _array(_TEXT)}, ("name", "version", "extensions")
    ),
    "ModelMetadata": _object(
        {
            "name": _TEXT,
            "versions": _array(_TEXT),
            "platform": _TEXT,
            "inputs": _array(_ref("Tensor")),
            "outputs": _array(_ref("Tensor")),
        },
        ("name", "platform", "inputs", "outputs"),
    ),
    "OipInferRequest": _object(
        {
            "id": _TEXT,
            "parameters": {
                "type": "object",
                "description": "context attributes too, where no header carries them; names that begin with `tidegate` are refused",
            },
            "inputs": _array({"type": "object"}),
            "outputs": _array({"type": "object"}),
        },
        ("inputs",),
    ),
    "OipInferAnswer": _object(
        {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": _array({"type": "object"})},
        ("model_name", "outputs"),
    ),
}


def _operation(identifier: str, summary: str, answer: _Json | None, error: _Json, **more: Any) -> _Json:
    good: _Json = {"description": "OK"}
    if answer is not None:
        good["content"] = answer
    if more.pop("decided", False):
        good["headers"] = _DECIDED
    responses = {"200": good}
    if (no := more.pop("no", None)) is not None:
        responses["400"] = {"description": "no", "content": _content(no)}
    if more.pop("granted", False):
        responses["403"] = {"description": "callers.yaml does not grant it to the caller", "content": error}
    if "requestBody" in more:
        responses["413"] = {
            "description": "the body, or what it holds, is above a limit, which is named",
            "content": error,
        }
        responses["503"] = {"description": "nothing can serve it now; see Retry-After", "content": error}
    return {
        "operationId": identifier,
        "summary": summary,
        "responses": {**responses, "default": {"description": "an error", "content": error}},
        **more,
    }


def _v1(identifier: str, summary: str, answer: _Json, body: str | None = None, **more: Any) -> _Json:
    if body is not None:
        more["requestBody"] = {"required": True, "content": _content(_ref(body))}
        more["parameters"] = [*more.get("parameters", ()), _OBJECTIVE, _EXPLAIN, _TIMEOUT, _CALLER, _OVERRIDE]
        more["decided"] = more["granted"] = True
    return _operation(
        identifier, summary, _content(answer), _content(_ref("Problem"), "application/problem+json"), **more
    )


def _v2(identifier: str, summary: str, answer: _Json | None, **more: Any) -> _Json:
    content = None if answer is None else _content(answer)
    return _operation(identifier, summary, content, _content(_ref("OipError")), **more)


def _yes_or_no(what: str) -> _Json:
    return {"type": "object", "properties": {what: {"type": "boolean"}}, "required": [what]}


def _model_paths(prefix: str, suffix: str, parameters: list[_Json]) -> _Json:
    """The paths of one model; `suffix` ends the operations' names."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    body = {"content": {**_content(_ref("OipInferRequest")), "application/octet-stream": binary}, "required": True}
    infer = _v2(f"infer{suffix}", "Infer", _ref("OipInferAnswer"), decided=True, granted=True, requestBody=body)
    infer["responses"]["200"]["content"]["application/octet-stream"] = binary
    infer["parameters"] = [
        _CONTEXT,
        _TIMEOUT,
        _header("Inference-Header-Content-Length", "bytes of JSON in front of the binary tensors", _INTEGER),
    ]
    parameters = [*parameters, _CALLER, _OVERRIDE]
    return {
        prefix: {
            "parameters": parameters,
            "get": _v2(
                f"modelMetadata{suffix}", "Describe the model", _ref("ModelMetadata"), decided=True, granted=True
            ),
        },
        f"{prefix}/ready": {
            "parameters": parameters,
            "get": _v2(f"modelReady{suffix}", "Tell whether the model is ready", None, decided=True, granted=True),
        },
        f"{prefix}/config": {
            "parameters": parameters,
            "get": _v2(
                f"modelConfig{suffix}", "Show the model's configuration", {"type": "object"}, decided=True, granted=True
            ),
        },
        f"{prefix}/stats": {
            "parameters": parameters,
            "get": _v2(
                f"modelStats{suffix}", "Show one server's statistics", {"type": "object"}, decided=True, granted=True
            ),
        },
        f"{prefix}/infer": {"parameters": parameters, "post": infer},
    }


_FLEET: _Json = {"type": "object", "description": "shards, endpoints and what is loaded on them"}
_FOR_OPERATORS = _v1("describeFleet", "Describe the fleet, to operators", _FLEET, security=[{"operator": []}])
_FOR_OPERATORS["responses"]["401"] = {
    "description": "the operators' token is missing or another",
    "content": _content(_ref("Problem"), "application/problem+json"),
}
DOCUMENT: _Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Tidegate",
        "version": __version__,
        "description": "Name an objective and a little context, get an inference. Models, versions and hosts are the rules' business.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "paths": {
        "/v1/objectives": {
            "get": _v1(
                "listObjectives",
                "List the objectives that the caller may use",
                _ref("Objectives"),
                parameters=[_CALLER],
                granted=True,
            )
        },
        "/v1/objectives/{objective}": {
            "get": _v1(
                "describeObjective",
                "Describe an objective",
                _ref("Objective"),
                parameters=[_OBJECTIVE, _CALLER],
                granted=True,
            )
        },
        "/v1/objectives/{objective}/infer": {
            "post": _v1("inferObjective", "Decide and infer", _ref("InferAnswer"), "InferRequest")
        },
        "/v1/objectives/{objective}/resolve": {
            "post": _v1("resolveObjective", "Decide only", _ref("Resolution"), "ResolveRequest")
        },
        "/v1/fleet": {"get": _FOR_OPERATORS},
        "/v2": {"get": _v2("serverMetadata", "Describe the server", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": _v2("serverLive", "Tell whether the gateway runs", _yes_or_no("live"))},
        "/v2/health/ready": {
            "get": _v2("serverReady", "Tell whether the gateway can serve", _yes_or_no("ready"), no=_yes_or_no("ready"))
        },
        **_model_paths("/v2/models/{objective}", "", [_OBJECTIVE]),
        **_model_paths("/v2/models/{objective}/versions/{version}", "OfVersion", [_OBJECTIVE, _VERSION]),
    },
    "components": {"schemas": _SCHEMAS, "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}}},
}
