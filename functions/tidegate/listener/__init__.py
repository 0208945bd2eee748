"""The HTTP/1.1 server of the local gateway: ASGI over `asyncio.Protocol`, heads read by llhttp."""

from tidegate.listener.config import ListenerConfig
from tidegate.listener.server import Listener

__all__ = ["Listener", "ListenerConfig"]
