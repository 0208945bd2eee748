"""Filters of Envoy, and when one is left out: a script that runs costs a request tens of microseconds.

https://www.envoyproxy.io/docs/envoy/latest/xds/type/matcher/v3/matcher.proto
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

TYPES: Final = "type.googleapis.com"
FILTERS: Final = f"{TYPES}/envoy.extensions.filters.http"
ANY: Final = {"safe_regex": {"google_re2": {}, "regex": r"\C*"}}
"""Matches every value, and no header that is missing."""

_INPUTS = f"{TYPES}/envoy.type.matcher.v3"


def http_filter(name: str, kind: str, **config: Any) -> Json:
    """Return a filter of a listener or of a cluster."""
    return {"name": name, "typed_config": {"@type": f"{FILTERS}.{kind}", **config}}


def without(prefix: str) -> Json:
    """Return the mutation that removes the headers whose names begin with a prefix."""
    return {"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}}


def script(name: str, source: str, *, unless: Json | None = None) -> Json:
    """Return a Lua filter; with `unless`, a request to which that predicate applies passes it untouched."""
    lua = http_filter(name, "lua.v3.Lua", default_source_code={"inline_string": source})
    if unless is None:
        return lua
    skip = {
        "name": "skip",
        "typed_config": {"@type": f"{TYPES}/envoy.extensions.filters.common.matcher.action.v3.SkipFilter"},
    }
    return {
        "name": name,
        "typed_config": {
            "@type": f"{TYPES}/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            "extension_config": lua,
            "xds_matcher": {"matcher_list": {"matchers": [{"predicate": unless, "on_match": {"action": skip}}]}},
        },
    }


def of_request(header: str, value: Json) -> Json:
    """Return the predicate that a header of the request has a value (a `StringMatcher`)."""
    return _of("HttpRequestHeaderMatchInput", header, value)


def of_answer(header: str, value: Json) -> Json:
    """Return the predicate that a header of the answer has a value; it holds for none before there is an answer."""
    return _of("HttpResponseHeaderMatchInput", header, value)


def all_of(*predicates: Json) -> Json:
    """Return the predicate that all of some hold."""
    return {"and_matcher": {"predicate": list(predicates)}}


def negated(predicate: Json) -> Json:
    """Return the predicate that another does not hold."""
    return {"not_matcher": predicate}


def _of(kind: str, header: str, value: Json) -> Json:
    read = {"name": "header", "typed_config": {"@type": f"{_INPUTS}.{kind}", "header_name": header}}
    return {"single_predicate": {"input": read, "value_match": value}}
