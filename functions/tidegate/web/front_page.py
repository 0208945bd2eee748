"""`GET /`: links to what the gateway serves, for people who open its address in a browser. It tells nothing of this deployment."""

from __future__ import annotations

from html import escape

from starlette.requests import Request

from tidegate.accept import qualities
from tidegate.web.console.assets import SECURITY
from tidegate.web.console.paths import PAGE
from tidegate.web.http import Answer, RawHeaders, header_values, json_answer

_CONSOLE = {"console": (PAGE, "the console, for operators")}
_LINKS = {
    "objectives": ("/v1/objectives", "the objectives that a caller may use"),
    "openapi": ("/openapi.json", "the description of both APIs, for tools and generators of clients"),
    "server": ("/v2", "the server, by the Open Inference Protocol"),
    "ready": ("/v2/health/ready", "whether it serves requests"),
    "protocol": ("https://github.com/kserve/open-inference-protocol", "the protocol of /v2"),
}
_VARY = ((b"vary", b"accept"),)


class FrontPage:
    """The page, as HTML, or as JSON where the request's `Accept` prefers that. With `has_console` it links to the console."""

    def __init__(self, has_console: bool) -> None:
        self._links = {**(_CONSOLE if has_console else {}), **_LINKS}
        items = "".join(
            f'<li><a href="{escape(path)}">{escape(path)}</a>: {escape(what)}</li>'
            for path, what in self._links.values()
        )
        self._html = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tidegate</title>'
            '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>'
            f"<body><h1>Tidegate</h1><p>Name an objective and a little context, get an inference.</p><ul>{items}</ul></body></html>"
        ).encode()

    async def answer(self, request: Request) -> Answer:
        """Return the page."""
        if _prefers_json(request.scope["headers"]):
            return json_answer({name: path for name, (path, _) in self._links.items()}, (*SECURITY, *_VARY))
        described = (b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(self._html))
        return Answer(200, (*described, *SECURITY, *_VARY), self._html)


def _prefers_json(headers: RawHeaders) -> bool:
    """Return whether `Accept` names JSON, and HTML less or not at all."""
    found = qualities(b",".join(header_values(headers, b"accept")).decode("latin-1"))
    return found.get("application/json", 0.0) > found.get("text/html", 0.0)
