"""The files of the console's page, read once: an address names one of them, and never a path of the disk."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.web.http import Answer, HeaderList

FOLDER = Path(__file__).with_name("assets")
INDEX = "index.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
SECURITY: HeaderList = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HASHED = re.compile(r"[.-][0-9a-f]{8,64}\.[a-z0-9]+$")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, with the headers that describe it."""

    body: bytes
    headers: HeaderList
    etag: bytes

    def answer(self, known: bytes | None) -> Answer:
        """Return the file, or 304 where `known`, the request's `If-None-Match`, has its tag."""
        if known is not None and self.etag in (each.strip().removeprefix(b"W/") for each in known.split(b",")):
            return Answer(304, [each for each in self.headers if each[0] != b"content-type"], b"")
        return Answer(200, [*self.headers, (b"content-length", b"%d" % len(self.body))], self.body)


@functools.cache
def assets(folder: Path = FOLDER) -> Mapping[str, Asset]:
    """Return the files of the page by their path below it. The first call reads them from disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in MEDIA_TYPES)
    return {path.relative_to(folder).as_posix(): _asset(path) for path in paths}


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
    # A file whose name has its digest never changes; of any other the browser asks whether it has.
    caching = b"public, max-age=31536000, immutable" if _HASHED.search(path.name) else b"no-cache"
    headers = (
        (b"content-type", MEDIA_TYPES[path.suffix].encode()),
        (b"cache-control", caching),
        (b"etag", etag),
        *SECURITY,
    )
    return Asset(body, headers, etag)
