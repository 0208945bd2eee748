"""The HTTP/1.1 server of the local gateway: ASGI over `asyncio.Protocol`, with llhttp as the parser of heads."""

from tidegate.listener.config import ListenerConfig
from tidegate.listener.server import Listener

__all__ = ["Listener", "ListenerConfig"]
