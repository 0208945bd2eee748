"""docs/infra-settings.md, made from the model that reads the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tidegate.settings import INFRASTRUCTURE as PREFIX

from infra.fixed_settings import fixed_fields
from infra.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "infra-settings.md"

HEAD = f"""# Infrastructure settings

<!-- Made by `python -m infra settings` from infra/settings.py; a test fails where they differ. -->

A stage's settings are in `infra/settings/<stage>.yaml`; an empty file means all defaults. Unknown keys and values out of range are
errors with file and line. The instance types and sizes of shards are not here but in `routing_rules/fleet.yaml`, beside the models
that are placed on them.

An environment variable overrides the file: `{PREFIX}` and the setting's name in capitals, with two underscores for a member of
a group, and the value as YAML, such as `{PREFIX}ALARMS__P99_MS=250` or `{PREFIX}AUTHORIZER='{{kind: iam}}'`. It replaces the file's
value, also of a whole group or mapping; an empty value means the default.
"""


def page() -> str:
    """Return the page's text."""
    return "\n".join([HEAD, *_fixed(), *_group(Settings, "", "Stage"), ""])


def _fixed() -> Iterator[str]:
    yield from ("After a stage's first deployment `make infra` refuses to change these:", "")
    yield from ("| setting | may | because |", "|---|---|---|")
    for name, mark in fixed_fields().items():
        yield f"| `{name}` | {'grow alone' if mark.may_grow else 'not change'} | {mark.why} |"
    yield ""


def _group(model: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    if model.__doc__ and prefix:
        yield from (f"## {title}", "", _sentence(model.__doc__), "")
    yield from ("| setting | type | default | meaning |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        yield f"| `{prefix}{name}` | {_type_words(field)} | {_default(field)} | {field.description} |"
    for name, field in model.model_fields.items():
        for group in _groups(field.annotation):
            yield ""
            kind = group.model_fields.get("kind")
            of_kind = f" (`kind: {get_args(kind.annotation)[0]}`)" if kind else ""
            yield from _group(group, f"{prefix}{name}.", f"`{prefix}{name}`{of_kind}")


def _groups(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [group for choice in get_args(annotation) for group in _groups(choice)]
    return []


def _sentence(doc: str) -> str:
    return " ".join(doc.split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"`{{kind: {kind}}}`" if kind else "see below"
    return "unset" if value is None else f"`{json.dumps(value)}`"


def _type_words(field: FieldInfo) -> str:
    words = _words(field.annotation, field.metadata)
    return words.replace("|", "\\|")


def _words(annotation: Any, metadata: Any = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _words(inner, more)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, UnionType):
        choices = [choice for choice in get_args(annotation) if choice is not type(None)]
        return " or ".join(dict.fromkeys(_words(choice) for choice in choices))
    if origin is list:
        return f"list of {_words(get_args(annotation)[0])}"
    if origin is dict:
        values = get_args(annotation)[1]
        return f"mapping of names to {_words(values)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "group"
    noun = {bool: "true or false", int: "integer", float: "number", str: "text"}[annotation]
    return noun + _range(metadata)


def _range(metadata: Any) -> str:
    low = high = None
    for each in metadata:
        constraints = [each, *getattr(each, "metadata", ())]
        for constraint in constraints:
            low = getattr(constraint, "ge", low)
            high = getattr(constraint, "le", high)
    if low is None:
        return ""
    return f", {low:g}–{high:g}" if high is not None and high < 1e6 else f", at least {low:g}"
