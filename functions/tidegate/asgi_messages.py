"""Messages of our own from the app to the listener, beside those of ASGI 3; `tidegate.listener.exchange.Exchange.send` describes them."""

from __future__ import annotations

from typing import Final

CUT: Final = "tidegate.cut"
"""Ends an answer as incomplete: without the last chunk, and with the connection."""

PATIENCE: Final = "tidegate.patience"
"""Has a caller disconnected that takes nothing for `seconds`."""
