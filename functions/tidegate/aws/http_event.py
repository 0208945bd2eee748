"""Translates events of an HTTP API (payload 2.0) or a Function URL to ASGI requests, and ASGI responses back.

A handler for Mangum (https://mangum.fastapiexpert.com/adapter/#custom-handlers). Mangum's own fails on fields that may be
null, decodes a path that may be decoded already, and accepts any text as base64. The events:
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html and
https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.errors import EventError

MOST_RESPONSE_BYTES = 6_291_556
"""The platform's limit on a response, as the runtime serializes it."""

_LONGEST_ESCAPE = 12
"""Characters of one escaped character at most: a surrogate pair."""

_VERSION = "2.0"


class HttpEvent:
    """Mangum's handler of one event. A field that is null counts as absent.

    Raises:
        EventError: a required field is absent, or a field has another type than the platform documents.
    """

    @classmethod
    def infer(cls, _event: Any, _context: Any, _config: Any) -> bool:
        return True

    def __init__(self, event: Any, context: Any, _config: Any = None) -> None:
        self._event = event
        request_context = event.get("requestContext") if isinstance(event, Mapping) else None
        if not isinstance(request_context, Mapping) or event.get("version") != _VERSION:
            raise EventError(
                f"the event is not an HTTP request of an HTTP API or a Function URL (an object of version {_VERSION})"
            )
        http = request_context.get("http")
        if not isinstance(http, Mapping):
            raise EventError("requestContext.http must be an object")
        path = _text(http.get("path"), "requestContext.http.path")
        raw_path = _text(event.get("rawPath"), "rawPath") or path
        method = _text(http.get("method"), "requestContext.http.method")
        if not method or not raw_path:
            raise EventError("requestContext.http.method and rawPath must be there")
        source_ip = _text(http.get("sourceIp"), "requestContext.http.sourceIp")
        query = _text(event.get("rawQueryString"), "rawQueryString") or ""
        headers = list(_headers(event))
        self.body = _body(event)
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": raw_path,
            # The app refuses a path that is encoded in either field: only one of them may be decoded.
            "raw_path": (path or raw_path).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": headers,
            "server": None,
            "client": (source_ip, 0) if source_ip else None,
            "aws.event": event,
            "aws.context": context,
        }

    def __call__(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response in the platform's form, with a body that is not text as base64."""
        headers: dict[str, str] = {}
        cookies: list[str] = []
        for raw_name, raw_value in response["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name == "set-cookie":
                cookies.append(value)
            else:
                headers[name] = f"{headers[name]},{value}" if name in headers else value
        text = _as_text(headers, response["body"])
        answer: dict[str, Any] = {
            "statusCode": response["status"],
            "headers": headers,
            "body": base64.b64encode(response["body"]).decode() if text is None else text,
            "isBase64Encoded": text is None,
        }
        return {**answer, "cookies": cookies} if cookies else answer


def fits(response: Mapping[str, Any]) -> bool:
    """Return whether a response is within the platform's limit. Only one that could exceed it is serialized to find out."""
    headers = sum(len(name) + len(value) for name, value in response["headers"].items())
    headers += sum(len(cookie) + 4 for cookie in response.get("cookies", ()))
    body = len(response["body"])
    escaped = body if response["isBase64Encoded"] else _LONGEST_ESCAPE * body
    if escaped + _LONGEST_ESCAPE * headers + 1024 <= MOST_RESPONSE_BYTES:
        return True
    return len(_packed(response).encode("utf-8", "surrogatepass")) <= MOST_RESPONSE_BYTES


def _packed(response: Mapping[str, Any]) -> str:
    """Serialize a response like the runtime; how it escapes characters depends on the Python version."""
    try:
        from awslambdaric.lambda_runtime_marshaller import to_json
    except ImportError:
        return json.dumps(response)
    packed: str = to_json(response)
    return packed


def _as_text(headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the body as text; None if it is binary, compressed or not UTF-8."""
    kind = headers.get("content-type", "").partition(";")[0].strip()
    is_text = not body or kind.startswith("text/") or kind.endswith(("/json", "+json"))
    if not is_text or "content-encoding" in headers:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _headers(event: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    headers = event.get("headers")
    if not isinstance(headers, Mapping | None):
        raise EventError("headers must be an object")
    for name, value in (headers or {}).items():
        text = _text(value, f"headers.{name[:64]}")
        if text is None:
            continue
        if not name or not name.isascii() or not name.isprintable() or any(each in text for each in "\r\n\0"):
            raise EventError("a header's name must be ASCII, and its value may hold no line break")
        yield name.lower().encode(), text.encode()
    cookies = event.get("cookies")
    if cookies is None:
        return
    if not isinstance(cookies, list) or not all(isinstance(cookie, str) for cookie in cookies):
        raise EventError("cookies must be a list of text")
    if cookies:
        yield b"cookie", "; ".join(_text(cookie, "cookies") or "" for cookie in cookies).encode()


def _body(event: Mapping[str, Any]) -> bytes:
    body = _text(event.get("body"), "body") or ""
    is_base64 = event.get("isBase64Encoded")
    if not isinstance(is_base64, bool | None):
        raise EventError("isBase64Encoded must be true or false")
    if not is_base64:
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise EventError("body is not base64, and isBase64Encoded says that it is") from None


def _text(value: object, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise EventError(f"{field} must be text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EventError(f"{field} must be Unicode text") from None
    return value
