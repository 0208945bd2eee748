"""Parameters that come with a request: a rule's own, else the caller's.

A rule's parameter reaches a step as the request parameter `Tidegate-Param-<name>`, which Triton makes from the HTTP
header of that name: text, in the header's own case. A caller's is `<name>` in the request's own `parameters`. Where
both are sent, the rule's counts. A value that does not fit is refused, never repaired.

Triton gives each model a folder of its own, so each step that has parameters has a copy of this file, byte for byte the
same; a test compares them.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

RULE_PREFIX = "tidegate-param-"

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


class ParameterError(ValueError):
    """A parameter is malformed or out of range; the message names it and says what would be right."""


class RequestParameters:
    """The parameters of one request, read from the JSON text that Triton's `request.parameters()` gives."""

    def __init__(self, text: str) -> None:
        self._sent: dict[str, Any] = json.loads(text or "{}")
        self._rule = {key.lower(): key for key in self._sent if key.lower().startswith(RULE_PREFIX)}

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        """The parameter `name` as an integer from `low` to `high`, or `default` where nobody sent it.

        Raises:
            ParameterError: it is no integer or lies outside the range, or nobody sent it and there is no default.
        """
        key, value = self._find(name, default)
        number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ParameterError(f"parameter {key!r} must be an integer from {low} to {high}, not {value!r:.40}")
        return number

    def number(self, name: str, default: float | None, low: float, high: float = math.inf) -> float:
        """The parameter `name` as a finite number from `low` to `high`, or `default` where nobody sent it.

        Raises:
            ParameterError: it is no finite number or lies outside the range, or nobody sent it and there is no default.
        """
        key, value = self._find(name, default)
        number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not is_number or not low <= number <= high:
            bounds = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise ParameterError(f"parameter {key!r} must be a number {bounds}, not {value!r:.40}")
        return float(number)

    def _find(self, name: str, default: Any) -> tuple[str, Any]:
        key = self._rule.get(RULE_PREFIX + name.lower(), name)
        value = self._sent.get(key, default)
        if value is None:
            raise ParameterError(f"parameter {name!r} is missing")
        return key, value
