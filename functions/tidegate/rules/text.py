"""Text from an HTTP header or a scalar request parameter, turned into the typed value of a context attribute."""

from __future__ import annotations

import math
import re

from tidegate.errors import ContextError
from tidegate.rules.contract import Attribute, ContextValue
from tidegate.rules.values import EXPECTED, accepts

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def parse_text(attribute: Attribute, text: str) -> ContextValue:
    """The typed value that `text` stands for.

    Booleans are `true` and `false` in any case, a set is its elements separated by commas (blanks around an element are
    dropped, empty text is the empty set), integers have at most 18 digits.

    Raises:
        ContextError: the text does not stand for a value of the attribute's type; the message names the attribute.
    """
    match attribute.type:
        case "integer" if _INTEGER.fullmatch(text):
            return int(text)
        case "number" if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        case "boolean" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "set":
            return tuple(part.strip() for part in text.split(",")) if text.strip() else ()
        case "string":
            return text
        case "version" if accepts("version", text):
            return text
        case _:
            raise ContextError(
                attribute.name,
                f"attribute {attribute.name!r} must be {EXPECTED[attribute.type]}, and the text sent for it is not",
            )
