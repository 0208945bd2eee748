"""The model stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tidegate.aws.model_store import S3ModelStore
from tidegate.ports import ModelStore
from tidegate.testing import MemoryModelStore

from tests.support.aws import LocalAws


@pytest.fixture(params=["memory", "s3"])
def stores(request: pytest.FixtureRequest) -> Callable[[], ModelStore]:
    """Makes a store: all that a test makes are of the same content, as several processes have it."""
    if request.param == "memory":
        store = MemoryModelStore()
        return lambda: store
    aws: LocalAws = request.getfixturevalue("aws")
    return lambda: S3ModelStore(aws.objects())
