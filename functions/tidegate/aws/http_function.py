"""An ASGI app as a Lambda function: HTTP API (payload 2.0) and Function URL events in, responses out.

Mangum (https://mangum.fastapiexpert.com) runs the app, and `HttpEvent` translates. This module adds polls for newer rules
while a request waits for its model, telemetry, and the platform's limits.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from mangum import Mangum

from tidegate.aws.edge_headers import BypassError, EdgeKeys, with_trusted_headers
from tidegate.aws.http_event import HttpEvent, fits
from tidegate.aws.telemetry import Telemetry
from tidegate.aws.xray_trace import within_invocation
from tidegate.errors import EventError

MOST_REQUEST_BYTES = 4_500_000
"""Largest request body that fits into an event as base64."""

RESOLVE_HINT = "ask POST /v1/objectives/{objective}/resolve where the model is served, and send it there yourself"

_log = logging.getLogger("tidegate.function")
_TITLES = {
    400: ("malformed-request", "The request is malformed"),
    403: ("forbidden", "Not for callers"),
    413: ("answer-too-large", "The answer is too large"),
    500: ("internal", "Internal error"),
}

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Freshness(Protocol):
    @property
    def measured_age_s(self) -> float | None:
        """Seconds since the rules were last known to be live; None if they never were, or a poll is under way."""

    def poll_if_due(self) -> object:
        """Start a poll for newer rules, if one is due, without waiting for it."""


class NoRules:
    """The `Freshness` of a function that does not decide."""

    @property
    def measured_age_s(self) -> float | None:
        return None

    def poll_if_due(self) -> object:
        return None


class HttpFunction:
    """The handler of a function.

    Args:
        freshness: polls beside each request; the app waits for it if the rules are too old.
        open_breakers: returns how many endpoints get no requests now.
        edge_keys: None: CloudFront is not in front.
        flush_shadows: sends the copies of a request before its answer is returned, as nothing runs after that; returns the
            counts of `tidegate.shadows.counts`.
        flush_traces: exports the spans of a request, for a short while, for the same reason; None: requests are not traced.
    """

    def __init__(
        self,
        app: App,
        freshness: Freshness,
        telemetry: Telemetry,
        open_breakers: Callable[[], int] = lambda: 0,
        edge_keys: EdgeKeys | None = None,
        flush_shadows: Callable[[], Counter[str]] = Counter,
        flush_traces: Callable[[], None] | None = None,
    ) -> None:
        self._edge_keys = edge_keys
        self._flush_shadows = flush_shadows
        self._flush_traces = flush_traces
        self._app = app
        self._freshness = freshness
        self._telemetry = telemetry
        self._open_breakers = open_breakers
        self._has_failed = False
        self._adapter = Mangum(self._beside_poll, lifespan="off", custom_handlers=[HttpEvent])

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        self._telemetry.begin(event, context.aws_request_id)
        response = self._answer(event, context)
        began_s = time.perf_counter()
        if shadows := self._flush_shadows():
            self._telemetry.shadows(shadows, (time.perf_counter() - began_s) * 1000)
        if self._flush_traces is not None:
            self._flush_traces()
        self._telemetry.end(response["statusCode"], self._freshness.measured_age_s, self._open_breakers())
        return response

    def _answer(self, event: Any, context: Any) -> dict[str, Any]:
        path = event.get("rawPath") if isinstance(event, Mapping) else None
        path = path if isinstance(path, str) else ""
        self._has_failed = False
        try:
            response: dict[str, Any] = self._adapter(with_trusted_headers(event, self._edge_keys), context)
        except BypassError as error:
            return _refusal(403, path, str(error))
        except EventError as error:
            _log.warning("refused an event: %s", error)
            return _refusal(400, path, str(error))
        except Exception as error:  # noqa: BLE001  # the caller gets an answer in the API's form
            _log.error("unforeseen %s", type(error).__name__)
            self._has_failed = True
        if self._has_failed:
            return _refusal(500, path, f"internal error, request {context.aws_request_id}")
        if not fits(response):
            return _refusal(413, path, f"the answer is larger than a function can carry: {RESOLVE_HINT}")
        return response

    async def _beside_poll(self, scope: Scope, receive: Any, send: Any) -> None:
        # The poll continues while the request waits for its model, and if that is too short, beside the next request.
        self._freshness.poll_if_due()
        if self._flush_traces is not None:
            scope = {**scope, "headers": within_invocation(scope["headers"], os.environ)}
        started = False

        async def observed_send(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception as error:  # noqa: BLE001  # Mangum would answer in another form, and log the message
            _log.error("unforeseen %s", type(error).__name__)
            self._has_failed = True
            if not started:
                await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def _refusal(status: int, path: str, detail: str) -> dict[str, Any]:
    """Return an error that the app cannot give itself, in the form of the API that was called."""
    kind = "application/json"
    document: dict[str, Any] = {"error": detail}
    if not path.startswith("/v2"):
        slug, title = _TITLES[status]
        kind = "application/problem+json"
        document = {"type": f"urn:tidegate:problem:{slug}", "title": title, "status": status, "detail": detail}
    return {
        "statusCode": status,
        "headers": {"content-type": kind},
        "body": json.dumps(document),
        "isBase64Encoded": False,
    }
