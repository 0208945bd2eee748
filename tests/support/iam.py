"""Policies of IAM, evaluated as AWS documents it: what moto's own enforcement does not do.

moto 5.2.5 looks at the resources of S3 alone: for any other service it asks for `*`, which a policy that names a table
refuses, and every condition of a role's policy holds for it. So a call is put into the words of IAM here (`tests/support/aws_calls.py`), and these policies decide. What they
hold and this module does not know is an error, never a match.
The logic: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

SCOPES = ("s3:prefix", "dynamodb:LeadingKeys", "kms:ViaService")
"""Conditions whose every value is a right of its own."""


@dataclass(frozen=True, slots=True)
class Call:
    """One action on one resource; `context` has the condition keys that the request gives, each with its values."""

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        given = "".join(f" [{key}={','.join(values)}]" for key, values in sorted(self.context.items()))
        return f"{self.action} on {self.resource}{given}"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """The least that a statement allows: an action, on one of its resources, for one value of a condition in `SCOPES`."""

    action: str
    resource: str
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}" + (f" for {self.scope}" if self.scope else "")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy, without anything that only a deployment knows."""

    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Statement:
        """A statement from its JSON."""
        unknown = document.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert not unknown, f"a policy has {unknown}, which is not evaluated here"
        conditions = {
            operator: {key: _texts(values) for key, values in keys.items()}
            for operator, keys in document.get("Condition", {}).items()
        }
        return cls(document["Effect"], _texts(document["Action"]), _texts(document["Resource"]), conditions)

    def matches(self, call: Call) -> bool:
        """Whether the statement is about a call."""
        return (
            any(_like(pattern.lower(), call.action.lower()) for pattern in self.actions)
            and any(_like(pattern, call.resource) for pattern in self.resources)
            and all(
                _holds(operator, key, values, call.context)
                for operator, keys in self.conditions.items()
                for key, values in keys.items()
            )
        )

    def rights(self) -> Iterator[Right]:
        """Everything that the statement allows."""
        compared = [keys for operator, keys in self.conditions.items() if operator != "Null"]
        scopes = [value for keys in compared for key in SCOPES for value in keys.get(key, ())]
        for action in self.actions:
            for resource in self.resources:
                yield from (Right(action, resource, scope) for scope in scopes or [""])

    def used(self, call: Call) -> Iterator[Right]:
        """The rights of the statement that a call which it allows makes use of."""
        given = [value for key in SCOPES for value in call.context.get(key, ())]
        for right in self.rights():
            fits = _like(right.action.lower(), call.action.lower()) and _like(right.resource, call.resource)
            if fits and (not right.scope or any(_like(right.scope, value) for value in given)):
                yield right


@dataclass(frozen=True, slots=True)
class Policy:
    """The statements of one role."""

    statements: tuple[Statement, ...]

    def allows(self, call: Call) -> bool:
        """Whether a call is allowed: by a statement, and denied by none."""
        about = [each for each in self.statements if each.matches(call)]
        return bool(about) and all(each.effect == "Allow" for each in about)

    def rights(self) -> set[Right]:
        """Everything that is allowed."""
        return {right for each in self.statements if each.effect == "Allow" for right in each.rights()}

    def used(self, calls: Sequence[Call]) -> set[Right]:
        """The rights that allowed calls make use of."""
        return {
            right
            for call in calls
            for each in self.statements
            if each.effect == "Allow" and each.matches(call)
            for right in each.used(call)
        }

    def without(self, index: int) -> Policy:
        """The policy without one of its statements."""
        return Policy((*self.statements[:index], *self.statements[index + 1 :]))


def _texts(value: Any) -> tuple[str, ...]:
    found = tuple(value) if isinstance(value, list) else (value,)
    assert all(isinstance(each, str) for each in found), f"{found} holds what only a deployment knows"
    return found


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    assert "${" not in pattern, f"{pattern} holds a policy variable, which is not evaluated here"
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(each) or re.escape(each) for each in pattern), re.DOTALL)


def _like(pattern: str, text: str) -> bool:
    return _pattern(pattern).fullmatch(text) is not None


def _equal(expected: str, text: str) -> bool:
    return expected == text


OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": _equal,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
}


def _holds(operator: str, key: str, expected: tuple[str, ...], context: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether one condition holds. Several expected values are alternatives, several keys are not."""
    given = context.get(key)
    if operator == "Null":
        return (given is None) == (expected == ("true",))
    for_all, _, rest = operator.rpartition(":")
    name = rest.removesuffix("IfExists")
    assert for_all in ("", "ForAllValues"), f"{operator} is not evaluated here"
    assert name in OPERATORS, f"{operator} is not evaluated here"
    compare = OPERATORS[name]
    if given is None:
        return bool(for_all) or rest.endswith("IfExists")
    quantifier = all if for_all else any
    return quantifier(any(compare(each, value) for each in expected) for value in given)
