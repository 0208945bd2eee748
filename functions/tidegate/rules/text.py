"""Text from an HTTP header or a scalar request parameter, turned into the typed value of a context attribute."""

from __future__ import annotations

import re

from tidegate.errors import ContextError
from tidegate.rules.contract import Attribute, ContextValue
from tidegate.rules.values import EXPECTED, accepts

MAX_DIGITS = 4300
"""Python refuses to read an integer of more digits, in JSON too."""

_INTEGER = re.compile(rf"[+-]?[0-9]{{1,{MAX_DIGITS}}}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_text(attribute: Attribute, text: str) -> ContextValue:
    """Convert `text` to the attribute's type; a number is the value that the same text has in JSON.

    Booleans are `true` and `false` in any case. A set is its elements separated by commas; blanks around an element are
    dropped, and so are empty elements (https://www.rfc-editor.org/rfc/rfc9110#section-5.6.1.2). Integers have at most
    `MAX_DIGITS` digits.

    Raises:
        ContextError: the text is not a value of the attribute's type; the message names the attribute.
    """
    match attribute.type:
        case "integer" if _INTEGER.fullmatch(text):
            return int(text)
        case "number" if (number := _number(text)) is not None:
            return number
        case "boolean" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "set":
            return tuple(element for part in text.split(",") if (element := part.strip()))
        case "string":
            return text
        case "version" if accepts("version", text):
            return text
        case _:
            raise ContextError(
                attribute.name,
                f"attribute {attribute.name!r} must be {EXPECTED[attribute.type]}, and the text sent for it is not",
            )


def _number(text: str) -> int | float | None:
    """Return the finite number that a text denotes, or None. An integer stays one, as a double has 53 bits only."""
    number: int | float
    if _INTEGER.fullmatch(text):
        number = int(text)
    elif _NUMBER.fullmatch(text):
        number = float(text)
    else:
        return None
    return number if accepts("number", number) else None
