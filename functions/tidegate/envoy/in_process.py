"""Has Envoy decide requests in its own process, by a filter that runs a resolver's code there (`in_process_filter.c`).

The filter `ext_authz` comes after it, and asks a resolver about each request that was not decided.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/dynamic_modules_filter
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.envoy.filters import TYPES, Json, http_filter

VERSION = (1, 40)
"""Envoy's version, whose interface of modules the filter is built for. It is only promised to be the same in releases of one version."""

_DECIDED = "x-tidegate-decided"
_NAMESPACE = "envoy.filters.http.ext_authz"


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessOptions:
    """What the filter needs.

    Attributes:
        library: the filter itself, absolute.
        python: the Python whose packages it uses.
        imports: a folder that is imported from first.
        folder: has the saved rules.
        reports: the Unix socket that gets its reports.
        settings: those of a resolver, by variable, without secrets.
    """

    library: Path
    python: str
    imports: Path
    folder: Path
    reports: Path
    settings: Mapping[str, str]


def in_process_filter(options: InProcessOptions) -> Json:
    """Return the filter."""
    started = {"folder": str(options.folder), "reports": str(options.reports), "settings": dict(options.settings)}
    # Lines that the filter itself reads, and then what it hands to Python.
    lines = (options.python, str(options.imports), json.dumps(started))
    return http_filter(
        "in_process",
        "dynamic_modules.v3.DynamicModuleFilter",
        dynamic_module_config={
            "module": {"local": {"filename": str(options.library)}},
            # Threads of Python run in it until Envoy ends; the packages' own libraries find Python's in it.
            "do_not_close": True,
            "load_globally": True,
        },
        filter_name="tidegate",
        filter_config={"@type": f"{TYPES}/google.protobuf.StringValue", "value": "\n".join(lines)},
    )


def unless_decided() -> Json:
    """Return the members of `ext_authz` by which it asks about no request that the filter has decided."""
    return {
        "filter_enabled_metadata": {
            "filter": _NAMESPACE,
            "path": [{"key": _DECIDED}],
            "value": {"present_match": True},
            "invert": True,
        }
    }
