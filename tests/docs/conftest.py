"""The example stack: the project's own rules and models, as `make up` runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT
from tests.support.parts import need
from tests.support.stack import RunningStack, running_stack


@pytest.fixture(scope="package")
def example_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The running example stack."""
    need("example models")
    log = tmp_path_factory.mktemp("example") / "log"
    with running_stack(ROOT / "routing_rules", ROOT / "triton_models", log, "--grpc-port", "0") as stack:
        yield stack
