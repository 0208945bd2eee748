"""The header `Accept` of a request whose answer has more than one form."""

from __future__ import annotations

import re

_QUALITY = re.compile(r"q=([01](?:\.\d{0,3})?)")


def qualities(accepted: str) -> dict[str, float]:
    """Return each media range of a header `Accept`, in lower case and without parameters, with its greatest quality (0 to 1). A quality
    that is none is 0 (https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1)."""
    found: dict[str, float] = {}
    for media_range in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in media_range.split(";"))
        text = next((each for each in parameters if each.startswith("q=")), "q=1")
        quality = _QUALITY.fullmatch(text)
        found[name] = max(found.get(name, 0.0), float(quality[1]) if quality else 0.0)
    return found
