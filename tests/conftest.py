"""What many tests need: a local AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tidegate.aws.provision import provision

from tests.support.aws import LocalAws, local_server, names


@pytest.fixture(scope="session")
def aws_url() -> Iterator[str]:
    """The address of one local AWS for all tests."""
    with local_server() as url:
        yield url


@pytest.fixture
def aws(aws_url: str) -> LocalAws:
    """The local AWS with a bucket and a table of the test's own."""
    local = names(aws_url)
    asyncio.run(provision(local.clients(), local.bucket, local.table))
    return local
