"""The process of `tidegate up`: one event loop for the fleet, changes of the rules and signals, beside the gateway's process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import click
import uvloop

from tidegate.bootstrap.local import local_stack
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.bootstrap.rules_sources import followed_rules
from tidegate.cli import progress
from tidegate.cli.columns import say
from tidegate.cli.first_steps import first_steps
from tidegate.control.following import FollowMode
from tidegate.errors import InterruptedWorkError, RulesError, StackError
from tidegate.ports.sources import CheckedRules
from tidegate.settings import Settings
from tidegate.tasks import cancel

logger = logging.getLogger("tidegate.up")

HOST = "127.0.0.1"


class Ports(NamedTuple):
    """The ports to serve on, 0 for any free one; `rpc` is None to serve no gRPC."""

    http: int
    rpc: int | None


SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, rules: Path, models: Path, ports: Ports, mode: FollowMode) -> None:
    """Run the stack until SIGTERM or SIGINT. `mode`: what the rules must pass, at the start and at each change."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signal(settings, rules, models, ports, mode))
    finally:
        # A late signal must not replace the exit code while the interpreter ends.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _until_signal(settings: Settings, rules: Path, models: Path, ports: Ports, mode: FollowMode) -> None:
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[int] = loop.create_future()
    ready = asyncio.Event()
    _on_signals(loop, signalled)
    work = asyncio.create_task(_serve(settings, rules, models, ports, mode, ready))
    racing: tuple[asyncio.Future[Any], ...] = (work, signalled)
    await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
        return
    was_ready = ready.is_set()
    logger.info("stopping")
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    if signalled.result() == signal.SIGINT and not was_ready:
        raise InterruptedWorkError("interrupted before the stack was ready")


def _on_signals(loop: asyncio.AbstractEventLoop, signalled: asyncio.Future[int]) -> None:
    """Complete `signalled` with the first SIGTERM or SIGINT. A second signal has no effect, since the stop is bounded.

    Unlike the loop's own handlers, these outlive the loop, so that every signal finds one.
    """

    def complete(number: int) -> None:
        if not signalled.done():
            signalled.set_result(number)

    def handle(number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(complete, number)

    for number in SIGNALS:
        signal.signal(number, handle)


async def _serve(
    settings: Settings, rules: Path, models: Path, ports: Ports, mode: FollowMode, ready: asyncio.Event
) -> None:
    """Start, set `ready`, and serve until cancelled; then stop everything, last first."""
    async with contextlib.AsyncExitStack() as started:
        listener = started.enter_context(_bind(ports.http))
        rpc_port = None if ports.rpc is None else started.enter_context(_reserve(ports.rpc))
        checked = await checked_rules(rules, mode)
        # Follow from here on, so that no change during the start is missed.
        serving: asyncio.Future[LocalStack] = asyncio.get_running_loop().create_future()
        follower = asyncio.create_task(follow_changes(rules, models, serving, mode))
        started.push_async_callback(cancel, follower)
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        stack = await started.enter_async_context(
            local_stack(settings, rules, models, checked, listener, mode, rpc_port)
        )
        # A second time, so that it is the first to be stopped, before the requests and the fleet.
        started.push_async_callback(cancel, follower)
        progress.end()
        click.echo(f"ready {url}")
        ready.set()
        serving.set_result(stack)
        printing = asyncio.create_task(_print_first_steps(url, stack, rules, models))
        started.push_async_callback(cancel, printing)
        await stack.wait()


async def _print_first_steps(url: str, stack: LocalStack, rules: Path, models: Path) -> None:
    """Print on standard error what can be tried now."""
    engine = await stack.live_engine()
    if engine is not None:
        steps = functools.partial(first_steps, has_console=stack.settings.console)
        for line in await asyncio.to_thread(steps, url, engine, rules, models):
            say(line, err=True)


async def checked_rules(rules: Path, mode: FollowMode) -> CheckedRules:
    """Return the rules, once they passed what every change of them must pass."""
    source = followed_rules(rules, mode)
    try:
        checked = await source.check()
        cases = await source.test(checked)
    except RulesError:
        if mode is not FollowMode.UNCHECKED:
            logger.warning(
                "the rules are refused; correct them, or start with --follow unchecked if they only have to compile"
            )
        raise
    for note in checked.notes:
        logger.warning("%s", note)
    logger.info("%s: %s; %s", rules, checked.summary, cases)
    return checked


@contextlib.contextmanager
def _bind(port: int, option: str = "--port") -> Iterator[socket.socket]:
    """Reserve the port before anything starts; connections are refused until the server listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            # A stack is known by its port for HTTP alone.
            look = (
                f"`tidegate status --stack http://{HOST}:{port}` shows a stack that has it; "
                if option == "--port"
                else ""
            )
            raise StackError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); {look}{option} names another, and {option} 0 takes a "
                f"free one"
            ) from error
        yield listener


@contextlib.contextmanager
def _reserve(port: int) -> Iterator[int]:
    """Reserve a port for gRPC, and yield it. The gateway's process binds it too, as gRPC takes no socket of another process."""
    # Without SO_REUSEPORT first, which would share the port with another stack.
    with _bind(port, "--grpc-port") as free:
        port = free.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((HOST, port))
        yield port


async def follow_changes(rules: Path, models: Path, serving: asyncio.Future[LocalStack], mode: FollowMode) -> None:
    """Publish every valid change of the rules; report every other.

    A change of models publishes nothing: a folder may be half copied, and a rule decides when it serves. But rules that were
    refused are tried again when a model changes, since they may have lacked it.
    """

    if mode is FollowMode.OFF:
        return

    async def changed(folders: frozenset[Path]) -> None:
        stack = await serving
        if rules in folders or stack.last_rejected is not None:
            await stack.follow_change()

    try:
        await _watch_folders((rules, models), changed)
        reason = "the watcher of the folders ended"
    except Exception as error:  # whatever it was, the status must say that nothing is followed
        logger.debug("following ended", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    logger.error("changes of %s and %s are no longer followed: %s; restart the stack", rules, models, reason)
    (await serving).follow_ended = reason


async def _watch_folders(folders: Sequence[Path], changed: Callable[[frozenset[Path]], Awaitable[None]]) -> None:
    """Call `changed` after every change below folders, with those of them that changed, one call at a time, until
    cancelled."""
    from watchfiles import awatch

    stop = asyncio.Event()
    resolved = {folder.resolve(): folder for folder in folders}
    try:
        async for changes in awatch(*resolved, stop_event=stop, recursive=True):
            paths = [Path(path) for _, path in changes]
            await changed(
                frozenset(
                    folder for where, folder in resolved.items() if any(path.is_relative_to(where) for path in paths)
                )
            )
    finally:
        stop.set()
