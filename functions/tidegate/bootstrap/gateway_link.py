"""The channel between the control plane of a local stack and its gateway, two processes on one machine.

A message is a JSON object with bytes behind it: two lengths (big-endian, 4 and 8 bytes), the JSON, the bytes. A message
with an `id` asks for an answer, which is a message of the kind `answer` with the same `id`. JSON and not pickle: the
gateway reads what strangers send, and must not be able to run code in the process that starts servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.errors import BundleError, StoreError, TidegateError
from tidegate.rules.bundle import MAX_BYTES

logger = logging.getLogger(__name__)

_LENGTHS = struct.Struct(">IQ")
_MOST_JSON_BYTES = 256 * 1024 * 1024
_BEHIND_BYTES = 1024 * 1024
_ANSWER = "answer"
_ERRORS: Mapping[str, type[TidegateError]] = {"bundle": BundleError, "store": StoreError}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: what it is about, its members, and the bytes that come with it."""

    kind: str
    members: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


Handler = Callable[[Message], Awaitable[Message | None]]
"""Takes a message; what it returns is the answer, where one is asked for. A `TidegateError` becomes an answer too."""


class GatewayLink:
    """One end of the channel.

    Args:
        reader: what the other end sends.
        writer: what goes there.
        handle: takes each message that is no answer, in a task of its own.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket, handle: Handler) -> GatewayLink:
        """A link over one end of a socket pair, which it owns from here on."""
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer, handle)

    @property
    def is_behind(self) -> bool:
        """Whether the other end has not read for so long that what can be left out should be."""
        return self._writer.transport.get_write_buffer_size() > _BEHIND_BYTES

    def send(self, message: Message) -> None:
        """Send a message and wait for nothing; a link whose other end is gone drops it."""
        if not self._writer.is_closing():
            self._writer.write(_encoded(message))

    async def ask(self, message: Message, timeout_s: float) -> Message:
        """Send a message and wait for its answer.

        Raises:
            StoreError: none came within `timeout_s` seconds, or the other end is gone; or it says that a store failed.
            BundleError: the other end says that there is no such bundle.
        """
        self._next_id += 1
        number = self._next_id
        waiting = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            if self._writer.is_closing():
                raise StoreError(_GONE)
            self.send(Message(message.kind, {**message.members, "id": number}, message.payload))
            async with asyncio.timeout(timeout_s):
                answer: Message = await waiting
        except TimeoutError as error:
            raise StoreError(f"the other process of this stack did not answer within {timeout_s:g} s") from error
        finally:
            self._asked.pop(number, None)
        if "error" in answer.members:
            raise _ERRORS.get(str(answer.members["error"]), StoreError)(str(answer.members.get("text", "")))
        return answer

    async def run(self) -> None:
        """Take what the other end sends until that is gone, or until cancelled. Raises nothing."""
        try:
            while True:
                message = await self._received()
                number = message.members.get("id")
                if message.kind == _ANSWER:
                    waiting = self._asked.get(number) if isinstance(number, int) else None
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                    continue
                task = asyncio.create_task(self._answered(message, number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (OSError, EOFError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            pass
        finally:
            await self._close()

    async def _received(self) -> Message:
        """The next message. Raises `EOFError` at the end, and many errors where it is none."""
        json_bytes, payload_bytes = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
        if json_bytes > _MOST_JSON_BYTES or payload_bytes > MAX_BYTES:
            raise ValueError("a message is too large")
        members = json.loads(await self._reader.readexactly(json_bytes))
        payload = await self._reader.readexactly(payload_bytes)
        return Message(str(members.pop("kind")), members, payload)

    async def _answered(self, message: Message, number: Any) -> None:
        try:
            answer = await self._handle(message)
        except TidegateError as error:
            kind = "bundle" if isinstance(error, BundleError) else "store"
            answer = Message(_ANSWER, {"error": kind, "text": str(error)})
        except Exception as error:  # noqa: BLE001  # what one end does not understand must not silence the channel
            logger.warning("a message of the kind %r could not be handled: %r", message.kind[:40], error)
            answer = Message(_ANSWER, {"error": "store", "text": type(error).__name__})
        if number is not None:
            answer = Message(_ANSWER) if answer is None else answer
            self.send(Message(_ANSWER, {**answer.members, "id": number}, answer.payload))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(StoreError(_GONE))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


_GONE = "the other process of this stack has ended"


def _encoded(message: Message) -> bytes:
    text = json.dumps({"kind": message.kind, **message.members}, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), len(message.payload)) + text + message.payload
