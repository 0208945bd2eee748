"""What many tests need: a local AWS, and the options that say how much is tried and what may be missing."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.aws.provision import provision

from tests.support import effort, parts, schedule
from tests.support.aws import LocalAws, local_server, names
from tests.support.timing import Timing

MEMORY_BYTES = max(8 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
"""What a process of the tests may allocate, and each that it starts: of those mypy and Triton take 4 GiB on two cores, and
Triton more on many."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tidegate")
    group.addoption(
        "--full", action="store_true", help="every example of the property tests, and what is marked slow: hours count"
    )
    group.addoption(
        "--require-all", action="store_true", help="a test that is skipped, as what it needs is not installed, fails"
    )


def pytest_configure(config: pytest.Config) -> None:
    # What commands print is not broken for whoever reads it here, also where a terminal has exported its width.
    os.environ.pop("COLUMNS", None)
    # readline, which pytest imports, sets it where Python does not see it, and so for every child.
    os.unsetenv("COLUMNS")
    # Hundreds of modules would be compiled for each worker, and for each process that a test starts.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A test that needs ever more memory fails with MemoryError, before the kernel ends its worker or another process.
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, hard))
    _share_service_models()
    config.addinivalue_line("markers", "slow: runs only with --full")
    config.addinivalue_line("markers", "patches: replaces what compiled modules do not let a test replace")
    # Where stacks and the commands that look for them meet; not the user's own.
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="tidegate-tests-")
    # The hooks of a conftest.py are not asked about folders below it, whose own conftest.py may lack a part.
    config.pluginmanager.register(parts)
    config.pluginmanager.register(Timing())
    effort.choose(full=config.getoption("--full"))


def _share_service_models() -> None:
    """Have all AWS clients of this process share what describes the services: reading it takes most of making a client."""
    try:
        import botocore.session
    except ImportError:
        return
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)


HEAVY = ("aws_cdk", "scipy.stats")
"""What only tests import that use it: each worker imports every file of tests, and these take it seconds. `import scipy` does not."""


def pytest_collection_finish() -> None:
    imported = [name for name in HEAVY if name in sys.modules]
    if imported:
        raise pytest.UsageError(
            f"a file of tests imports {', '.join(imported)}: import it in the function that uses it"
        )
    # Modules and tests stay to the end; the collector need not look at them again and again.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not effort.is_full():
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
    items.sort(key=lambda item: schedule.start(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return schedule.scheduler(config, log)


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
