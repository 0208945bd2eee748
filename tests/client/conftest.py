"""The fixtures of tests/web: a real Triton, a scripted one, and gateways in front of them."""

from __future__ import annotations

from tests.web.conftest import (
    engine,
    fake,
    fake_server,
    gateway,
    left_to_no_other_test,
    scripted,
    scripted_server,
    triton,
)

__all__ = ["engine", "fake", "fake_server", "gateway", "left_to_no_other_test", "scripted", "scripted_server", "triton"]
