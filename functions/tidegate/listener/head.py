"""Reads the heads of requests: the request line by a regular expression, the header lines by llhttp.

llhttp (https://llhttp.org) runs without leniency flags. It refuses bare CR or LF, folded lines, NUL, blanks before a colon,
and a Content-Length that is repeated, signed or combined with Transfer-Encoding. The other requirements of RFC 9112
(https://www.rfc-editor.org/rfc/rfc9112) are checked here.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

import httptools

from tidegate.listener.config import ListenerConfig
from tidegate.listener.refusal import RefusalError

_REQUEST_LINE: Final = re.compile(rb"([A-Z-]+) ([!-~]+) HTTP/1\.([01])")
_OTHER_VERSION: Final = re.compile(rb"[A-Z-]+ [!-~]+ HTTP/[0-9](?:\.[0-9])?|[A-Z]+ [!-~]+")
_ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#@]+)(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_LONGEST_REST_OF_LINE: Final = 64
_MOST_BLANK_BYTES: Final = 64
_MOST_KEPT_BYTES: Final = 2_048
_WATCHED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})
_BLANKS: Final = b" \t"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}

Headers = list[tuple[bytes, bytes]]


class HeadReader:
    """Reads one head after another from a connection. After a complete head, the attributes describe its request."""

    __slots__ = (
        "_complete", "_config", "_fed_bytes", "_in_step", "_known_head", "_known_host", "_line", "_line_read", "_parser",
        "_partial", "_watched", "chunked", "content_length", "expects_continue", "headers", "http_10", "keep_alive", "method",
        "path", "query", "raw_path",
    )  # fmt: skip

    def __init__(self, config: ListenerConfig) -> None:
        self._config = config
        self._parser = httptools.HttpRequestParser(self)
        self._in_step = False
        self._partial = bytearray()
        self._fed_bytes = 0
        self._line = b""
        self._line_read = False
        self._complete = False
        self._watched: Headers = []
        # The last head, if its request was framed by a Content-Length, so that the next one of the same bytes means the same.
        self._known_head = b""
        self._known_host: bytes | None = None
        self.headers: Headers = []
        self.method = self.path = ""
        self.raw_path = self.query = b""
        self.http_10 = self.chunked = self.expects_continue = False
        self.keep_alive = True
        self.content_length = 0

    @property
    def begun(self) -> bool:
        """Whether a part of a head has arrived."""
        return bool(self._partial)

    def feed(self, data: bytes) -> int | None:
        """Parse a part of a head, or all of it; return the offset in `data` at which the head ends, or None.

        Raises:
            RefusalError: the head is malformed or exceeds a limit. The connection cannot be read any further.
        """
        if not self._partial and data[0] > 0x20:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                end += 4
                head = data if end == len(data) else data[:end]
                if head == self._known_head:
                    # llhttp has seen neither this head nor will it see the body: it is where the next head begins.
                    self._in_step = False
                    return end
                self._read_line(data)
                if end > self._config.max_head_bytes:
                    raise self._too_large()
                self._parse(head)
                self._finish()
                is_kept = self._in_step and not self.expects_continue and end <= _MOST_KEPT_BYTES
                self._known_head = head if is_kept else b""
                return end
        self._known_head = b""
        return self._feed_part(data)

    def skip(self, body: bytes) -> None:
        """Pass a body with a Content-Length to llhttp, so that it expects the next head after it."""
        if self._in_step:
            self._parser.feed_data(body)

    def release(self) -> None:
        """Drop the parser, which refers back to this reader, so that both are freed without the garbage collector."""
        self._parser = httptools.HttpRequestParser(None)

    def scope(self, client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> dict[str, Any]:
        """Return the ASGI scope of the request."""
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.0" if self.http_10 else "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": client,
            "server": server,
        }

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header line (called by llhttp)."""
        name = name.lower()
        header = (name, value)
        self.headers.append(header)
        if name in _WATCHED:
            self._watched.append(header)

    def on_headers_complete(self) -> None:
        """Note the end of the head (called by llhttp)."""
        self._complete = True

    def _feed_part(self, data: bytes) -> int | None:
        """Parse a head that arrives in parts. llhttp gets each part at once, so that malformed HTTP is refused early."""
        partial = self._partial
        partial += data
        if self._fed_bytes == 0 and not self._drop_blank_lines():
            return None
        if not self._line_read:
            self._read_line(partial)
        end = partial.find(b"\r\n\r\n", max(0, self._fed_bytes - 3))
        stop = len(partial) if end < 0 else end + 4
        if stop > self._config.max_head_bytes:
            raise self._too_large()
        self._parse(bytes(partial[self._fed_bytes : stop]), first=self._fed_bytes == 0, last=end >= 0)
        if end < 0:
            self._fed_bytes = stop
            return None
        self._partial = bytearray()
        self._fed_bytes = 0
        self._finish()
        return len(data) - (len(partial) - stop)

    def _drop_blank_lines(self) -> bool:
        """Drop empty lines before a request (RFC 9112 2.2); return whether other bytes have arrived."""
        partial = self._partial
        blank = 0
        while partial.startswith(b"\r\n", blank):
            blank += 2
            if blank > _MOST_BLANK_BYTES:
                # They are scanned again with each part that arrives.
                raise RefusalError(400, f"more than {_MOST_BLANK_BYTES // 2} empty lines precede the request line")
        begun = bytes(partial[blank : blank + 2])
        if begun in (b"", b"\r"):
            return False
        if begun[0] in b"\r\n":
            raise RefusalError(400, "a line before the request line ends in CR or LF alone; end lines in CRLF")
        del partial[:blank]
        return True

    def _read_line(self, data: bytes | bytearray) -> None:
        """Parse the request line, once it is complete.

        Raises:
            RefusalError: it is too long, or not a request line of HTTP/1.0 or 1.1.
        """
        end = data.find(b"\r\n", 0, self._config.max_target_bytes + _LONGEST_REST_OF_LINE)
        if end < 0:
            if len(data) > self._config.max_target_bytes + _LONGEST_REST_OF_LINE:
                raise RefusalError(414, f"the request target exceeds {self._config.max_target_bytes} bytes; shorten it")
            return
        line = data[:end]
        if line == self._line:
            # Most requests of a connection have the same line, and the attributes from the last one still hold.
            self._line_read = True
            return
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            if _OTHER_VERSION.fullmatch(line):
                raise RefusalError(505, "this server speaks HTTP/1.1 and HTTP/1.0 alone")
            raise RefusalError(400, "the request line must be a method, a target and HTTP/1.1, one space between them")
        method, target, minor = match.groups()
        if len(target) > self._config.max_target_bytes:
            raise RefusalError(414, f"the request target exceeds {self._config.max_target_bytes} bytes; shorten it")
        self._line_read = True
        self.method = method.decode()
        self.http_10 = minor == b"0"
        self._read_target(bytes(target))
        self._line = bytes(line)

    def _read_target(self, target: bytes) -> None:
        if self.method == "CONNECT":
            raise RefusalError(405, "CONNECT is not offered: this is not a proxy", ((b"allow", b"GET, HEAD, POST"),))
        if b"#" in target:
            raise RefusalError(400, "the request target must not have a fragment ('#')")
        if target[0] == 0x2F:
            self.raw_path, _, self.query = target.partition(b"?")
        elif (match := _ABSOLUTE_FORM.fullmatch(target)) is not None:
            self.raw_path, self.query = match[2] or b"/", match[3] or b""
        elif target == b"*" and self.method == "OPTIONS":
            self.raw_path, self.query = target, b""
        else:
            raise RefusalError(400, "the request target must begin with '/', 'http://' or 'https://'")
        path = self.raw_path.decode("ascii")
        self.path = unquote(path) if "%" in path else path

    def _parse(self, part: bytes, *, first: bool = True, last: bool = True) -> None:
        """Pass a part of the head to llhttp, which must see the end of the head exactly where it was found here.

        `Upgrade` is ignored (RFC 9110 7.8), but llhttp then expects another protocol, so a new parser reads the next head.
        """
        if first:
            self.headers = []
            self._watched = []
            self._complete = self._in_step = False
        upgraded_at: int | None = None
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            upgraded_at = upgrade.args[0]
        except httptools.HttpParserError as error:
            raise RefusalError(400, f"the request is not HTTP/1.1 (RFC 9112): {error}") from None
        if self._complete is not last or upgraded_at not in (None, len(part)):
            raise RefusalError(400, "the request's head does not end where it should")
        if len(self.headers) > self._config.max_headers:
            raise RefusalError(431, f"the request has more than {self._config.max_headers} headers; send fewer")
        if upgraded_at is not None:
            self._parser = httptools.HttpRequestParser(self)
        else:
            self._in_step = last

    def _finish(self) -> None:
        """Read the headers that frame the message and that control the connection."""
        self._line_read = self.chunked = self.expects_continue = False
        self.content_length = 0
        options: list[bytes] = []
        hosts = codings = 0
        for name, value in self._watched:
            if name == b"host":
                hosts += 1
                if value != self._known_host:
                    self._check_host(value)
            elif name == b"content-length":
                self.content_length = self._length(value)
            elif name == b"connection":
                options += value.lower().replace(b" ", b"").replace(b"\t", b"").split(b",")
            elif name == b"transfer-encoding":
                codings += 1
                self._check_coding(value)
            elif not self.http_10:
                self._read_expectation(value)
        if hosts != 1 and (hosts or not self.http_10):
            raise RefusalError(400, "a request must have exactly one Host header")
        self.keep_alive = not self.http_10 if not options else self._keeps_alive(options)
        if codings:
            self._begin_chunked(codings)

    def _begin_chunked(self, codings: int) -> None:
        if codings > 1 or any(name == b"content-length" for name, _ in self._watched):
            raise RefusalError(
                400, "the length of the body is given twice; send one Transfer-Encoding or Content-Length"
            )
        if self.http_10:
            raise RefusalError(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length")
        self.chunked = True
        if self._in_step:
            self._in_step = False
            self._parser = httptools.HttpRequestParser(self)

    def _check_host(self, value: bytes) -> None:
        if not _HOST.fullmatch(value.strip(_BLANKS)):
            raise RefusalError(400, "the Host header must be a name or an address, with a port or without")
        self._known_host = value

    def _length(self, value: bytes) -> int:
        digits = value.strip(_BLANKS)
        if not digits.isdigit() or len(digits) > 20:
            raise RefusalError(400, "the Content-Length must be a decimal number")
        return int(digits)

    def _check_coding(self, value: bytes) -> None:
        if value.strip(_BLANKS).lower() != b"chunked":
            raise RefusalError(501, "the only Transfer-Encoding that is read is chunked, once")

    def _keeps_alive(self, options: list[bytes]) -> bool:
        return b"close" not in options and (not self.http_10 or b"keep-alive" in options)

    def _read_expectation(self, value: bytes) -> None:
        if value.strip(_BLANKS).lower() != b"100-continue":
            raise RefusalError(417, "the only expectation that can be met is 100-continue")
        self.expects_continue = True

    def _too_large(self) -> RefusalError:
        return RefusalError(
            431, f"the request's head exceeds {self._config.max_head_bytes} bytes; send fewer or shorter headers"
        )
