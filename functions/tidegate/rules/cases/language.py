"""The case files as pydantic models: `cases/<objective>.yaml`.

Unlike in rules, null has a meaning here: `rule: null` expects that no rule matches, `cell: null` that there is no cell,
and a context may hold it, to show that it is refused. `NOTHING` stands for it while a file's shape is checked.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt, StrictStr, WithJsonSchema

from tidegate.rules.decision import Reason
from tidegate.rules.language import Milliseconds, Model, Name, ParameterName, ParameterValue, Percent, TargetText


class Nothing(Enum):
    """Stands for a null that an author wrote on purpose."""

    NOTHING = "nothing"

    def __deepcopy__(self, memo: object) -> Nothing:
        return self


NOTHING = Nothing.NOTHING


def with_nothing(value: Any) -> Any:
    """A value with every null in it replaced by `NOTHING`."""
    if isinstance(value, dict):
        return {key: with_nothing(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nothing(item) for item in value]
    return NOTHING if value is None else value


def with_null(value: Any) -> Any:
    """The inverse of `with_nothing`."""
    if isinstance(value, dict):
        return {key: with_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_null(item) for item in value]
    return None if value is NOTHING else value


Null = Annotated[None, BeforeValidator(with_null), WithJsonSchema({"type": "null", "title": "none"})]
Text = Annotated[StrictStr, Field(min_length=1)]
CellText = StrictInt | Text


class ExpectSpec(Model):
    """What a case must decide. Only the keys given are compared, each as a whole."""

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
    shards: list[Name] | None = Field(None, description="The shards of the target, preferred first.")
    error: Text | None = Field(None, description="The attribute for which the context is refused.")


class CaseSpec(Model):
    """A context, and what it must decide."""

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
