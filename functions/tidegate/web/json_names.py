"""Names to be found in JSON that has not been parsed: parsing each body would cost more than all else that is done to it."""

from __future__ import annotations

import re

_ESCAPE = b"\\u00"


class JsonName:
    """The name of a member, of letters that JSON may escape: `"par\\u0061meters"` is the name `parameters` too."""

    def __init__(self, name: str) -> None:
        self._plain = f'"{name}"'.encode()
        letters = (rf"(?:{letter}|\\u00(?i:{ord(letter):02x}))" for letter in name)
        self._escaped = re.compile(f'"{"".join(letters)}"'.encode())

    def is_in(self, text: bytes, end: int) -> bool:
        """Whether the name is in the first `end` bytes of some JSON, perhaps as text."""
        if text.find(self._plain, 0, end) >= 0:
            return True
        # One byte is found at the speed of memory, and most JSON has no backslash.
        first = text.find(b"\\", 0, end)
        return first >= 0 and text.find(_ESCAPE, first, end) >= 0 and self._escaped.search(text, 0, end) is not None


PARAMETERS = JsonName("parameters")
SEQUENCE_ID = JsonName("sequence_id")
