"""Server-sent events, as Triton's `generate_stream` writes them: `data: <JSON>` and a blank line.

https://html.spec.whatwg.org/multipage/server-sent-events.html#server-sent-events
"""

from __future__ import annotations

import json
from typing import Final

from tidegate.oip.error_texts import error_text

MEDIA_TYPE: Final = b"text/event-stream"
_DATA: Final = b"data:"
_END: Final = b"\n\n"
_ERROR: Final = b'{"error"'
_MODEL: Final = b',"model_name":"'


class EventReader:
    """Splits a body into whole events as it arrives; `rest` is the start of one that is not complete."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are complete now, each with the blank line after it."""
        searched = max(len(self.rest) - 1, 0)
        data = self.rest + data if self.rest else data
        events: list[bytes] = []
        start, end = 0, data.find(_END, searched)
        while end >= 0:
            events.append(data[start : end + 2])
            start = end + 2
            end = data.find(_END, start)
        self.rest = data[start:]
        return events


def event_data(event: bytes) -> bytes:
    """Return the data of an event of one line; for another event, the event itself."""
    return event[len(_DATA) :].strip() if event.startswith(_DATA) else event


def error_of(event: bytes) -> str | None:
    """Return the text of an event in which Triton reports an error; None for another event."""
    data = event_data(event)
    # An output may have the name `error`; the name of its model is beside it.
    return error_text(data) if data.startswith(_ERROR) and _MODEL not in data else None


def error_event(text: str) -> bytes:
    """Return an event that reports an error as Triton does."""
    return data_event(json.dumps({"error": text}, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def data_event(data: bytes, name: bytes | None = None) -> bytes:
    """Return an event with one line of data, and a name that tells it from other events."""
    return b"data: %b\n\n" % data if name is None else b"event: %b\ndata: %b\n\n" % (name, data)
