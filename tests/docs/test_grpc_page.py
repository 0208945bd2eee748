"""docs/grpc.md: its example works, and it names every method that is served."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from tests.docs.blocks import ROOT, blocks
from tests.support.stack import RunningStack

PAGE = "docs/grpc.md"
(EXAMPLE,) = (block.text for block in blocks(PAGE) if block.language == "python")
METHODS = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
)


def test_the_example_prints_titles(example_stack: RunningStack) -> None:
    address = example_stack.get("/v1/fleet")["gateway"]["grpc"]
    assert EXAMPLE.count("127.0.0.1:8001") == 1
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(EXAMPLE.replace("127.0.0.1:8001", address), names)
    names["client"].close()
    assert printed.getvalue().startswith("[[b'")


def test_every_method_is_named() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*METHODS, "ModelInfer", "ModelStreamInfer"))
