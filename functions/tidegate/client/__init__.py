"""The SDK: decides in the caller's process, or asks a resolver, and calls the model itself.

The stable API::

    with Client("http://127.0.0.1:8080", caller="home-screen") as client:
        answer = client.infer("title_ranking", {"MEMBER_ID": "42"}, {"member_id": "42", "country": "US"})
        answer.outputs["TITLES"], answer.decision.rule

`AsyncClient` has the same methods as coroutines. Both need the standard library alone; `tritonclient` is imported where inputs or
outputs are arrays, and for gRPC.
"""

from __future__ import annotations

from tidegate.client.aio import AsyncClient
from tidegate.client.calling import Inference
from tidegate.client.config import ClientConfig, Decide, Protocol
from tidegate.client.sync import Client
from tidegate.rules.decision import Decision

__all__ = ["AsyncClient", "Client", "ClientConfig", "Decide", "Decision", "Inference", "Protocol"]
