"""The case files as pydantic models: `cases/<objective>.yaml`.

Unlike in rules, null has a meaning here: `rule: null` expects that no rule matches, `cell: null` that there is no cell,
and a context may hold it, to show that it is refused. `NOTHING` takes its place while a file's shape is checked.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt, StrictStr, WithJsonSchema

from tidegate.language.documents import Milliseconds, Model, Name, ParameterName, ParameterValue, Percent, TargetText
from tidegate.rules.decision import HedgeAt, Reason


class Nothing(Enum):
    """Takes the place of a null that an author wrote on purpose."""

    NOTHING = "nothing"


NOTHING = Nothing.NOTHING


def with_nothing(value: Any) -> Any:
    """Return a value with every null in it replaced by `NOTHING`."""
    return _replaced(value, None, NOTHING)


def with_null(value: Any) -> Any:
    """Undo `with_nothing`."""
    return _replaced(value, NOTHING, None)


def _replaced(value: Any, old: object, new: object) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return new if value is old else value


Null = Annotated[None, BeforeValidator(with_null), WithJsonSchema({"type": "null", "title": "none"})]
Text = Annotated[StrictStr, Field(min_length=1)]
CellText = StrictInt | Text


class ExpectSpec(Model):
    """The expected decision of a case. Only the given keys are compared, each as a whole."""

    rule: Name | Null = Field(None, description="The rule that decides; null: no rule matches.")
    model: Name | None = Field(None, description="The model that the target resolves to.")
    version: Annotated[StrictInt, Field(ge=1)] | Null = Field(None, description="The pinned version; null: none.")
    target: TargetText | None = Field(None, description="The target as the rule writes it.")
    variant: CellText | Null = Field(None, description="The picked variant of a split or experiment; null: none.")
    experiment: CellText | Null = Field(None, description="The experiment's id; null: none.")
    cell: CellText | Null = Field(None, description="The experiment's cell; null: none.")
    reason: Reason | None = Field(None, description="Why the target was picked.")
    parameters: dict[ParameterName, ParameterValue] | None = Field(None, description="All parameters.")
    fallbacks: list[TargetText] | None = Field(None, description="All fallbacks, as written, in order.")
    shadows: dict[TargetText, Percent] | list[TargetText] | None = Field(
        None, description="All shadows with their percent, or their targets alone."
    )
    timeout_ms: Milliseconds | Null = Field(None, description="The deadline; null: none.")
    hedge_after_ms: Milliseconds | Null = Field(None, description="null: none.")
    hedge_at: HedgeAt | Null = Field(None, description="null: none.")
    shards: list[Name] | None = Field(None, description="The shards of the target, preferred first.")
    error: Text | None = Field(None, description="The attribute for which the context is refused.")


class CaseSpec(Model):
    """A context, and its expected decision."""

    name: Text = Field(description="What the case shows.")
    context: Annotated[dict[StrictStr, Any], BeforeValidator(with_null)] = Field({}, description="Attribute values.")
    at: StrictStr | None = Field(
        None, description="When the request comes, ISO 8601.", examples=["2026-11-01T00:00:00Z"]
    )
    allocations: dict[Annotated[StrictInt, Field(ge=0)] | Name, CellText] = Field(
        {}, description="The caller's cells by experiment."
    )
    expect: ExpectSpec


class CaseFile(Model):
    """`cases/<objective>.yaml`: the cases of one objective."""

    objective: Name = Field("", description="The objective; the file's name where left out.")
    cases: Annotated[list[CaseSpec], Field(min_length=1)]
