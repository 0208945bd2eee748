"""The gateway's ASGI app: `/v2` (Open Inference Protocol, an objective as the model) and `/v1` (plain JSON).

The stable API::

    app = create_app(engines=engines, dispatcher=dispatcher, fleet=fleet)
"""

from __future__ import annotations

from tidegate.web.app import create_app

__all__ = ["create_app"]
