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
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from tidegate.errors import BundleError, StoreError, TidegateError
from tidegate.rules.bundle import MAX_BYTES
from tidegate.tasks import spawn

logger = logging.getLogger(__name__)

_LENGTHS = struct.Struct(">IQ")
_MOST_JSON_BYTES = 256 * 1024 * 1024
_BEHIND_BYTES = 1024 * 1024
_GONE = "the other process of this stack has ended"
_ERRORS: Mapping[str, type[TidegateError]] = {"bundle": BundleError, "store": StoreError}


class MessageKind(StrEnum):
    ANSWER = "answer"
    # To the gateway:
    START = "start"
    DIRECTORY = "directory"
    POLL = "poll"
    STOP = "stop"
    # From it:
    READY = "ready"
    BEAT = "beat"
    POINTER = "pointer"
    BUNDLE = "bundle"
    REPORT = "report"
    STATUS = "status"
    SUSPECT = "suspect"
    LOG = "log"
    SHADOWS = "shadows"
    SAMPLED = "sampled"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Message:
    kind: MessageKind
    members: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


Handler = Callable[[Message], Awaitable[Message | None]]
"""Handles a message and returns the answer, if one is expected. A `TidegateError` becomes an answer too."""


class GatewayLink:
    """One end of the channel. `handle` gets each message except answers, in a task of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket, handle: Handler) -> GatewayLink:
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer, handle)

    @property
    def is_behind(self) -> bool:
        """Whether the other end has read nothing for so long that optional messages should be left out."""
        return self._writer.transport.get_write_buffer_size() > _BEHIND_BYTES

    def send(self, message: Message) -> None:
        """Send a message without waiting; it is dropped if the other end is gone."""
        if not self._writer.is_closing():
            text = json.dumps({"kind": message.kind, **message.members}, separators=(",", ":")).encode()
            self._writer.write(_LENGTHS.pack(len(text), len(message.payload)) + text + message.payload)

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
            self.send(replace(message, members={**message.members, "id": number}))
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
        """Handle the other end's messages until it is gone, or until cancelled. Raises nothing."""
        try:
            while True:
                message = await self._received()
                number = message.members.get("id")
                if message.kind is MessageKind.ANSWER:
                    waiting = self._asked.get(number) if isinstance(number, int) else None
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                    continue
                spawn(self._tasks, self._answered(message, number))
        except (OSError, EOFError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            pass
        finally:
            await self._close()

    async def _received(self) -> Message:
        """Return the next message. Raises `EOFError` at the end, and various errors if it is malformed."""
        json_bytes, payload_bytes = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
        if json_bytes > _MOST_JSON_BYTES or payload_bytes > MAX_BYTES:
            raise ValueError("a message is too large")
        members = json.loads(await self._reader.readexactly(json_bytes))
        payload = await self._reader.readexactly(payload_bytes)
        return Message(MessageKind(members.pop("kind")), members, payload)

    async def _answered(self, message: Message, number: Any) -> None:
        try:
            answer = await self._handle(message)
        except TidegateError as error:
            if number is None:
                # No answer tells the other end.
                logger.warning("a message of the kind %r was in vain: %s", message.kind.value, error)
            kind = "bundle" if isinstance(error, BundleError) else "store"
            answer = Message(MessageKind.ANSWER, {"error": kind, "text": str(error)})
        except Exception as error:  # noqa: BLE001  # a message that one end does not understand must not end the channel
            logger.warning("a message of the kind %r could not be handled: %r", message.kind.value, error)
            answer = Message(MessageKind.ANSWER, {"error": "store", "text": type(error).__name__})
        if number is not None:
            answer = Message(MessageKind.ANSWER) if answer is None else answer
            self.send(replace(answer, members={**answer.members, "id": number}))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(StoreError(_GONE))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
