"""The process of `tidegate up`: one event loop for the fleet, the rules' changes and the signals, beside the gateway's process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import uvloop

from tidegate.bootstrap.local import local_stack
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.bootstrap.sources import followed_rules
from tidegate.bootstrap.tasks import cancel
from tidegate.cli.columns import say
from tidegate.cli.first_steps import first_steps
from tidegate.control.following import FollowMode
from tidegate.control.rules_watch import follow
from tidegate.control.sources import CheckedRules
from tidegate.errors import RulesError, StackError
from tidegate.settings import Settings

logger = logging.getLogger("tidegate.up")

HOST = "127.0.0.1"
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, rules: Path, models: Path, port: int, mode: FollowMode) -> None:
    """Run the stack until SIGTERM or SIGINT. `mode`: what the rules must pass, at the start and whenever they change.

    Raises:
        TidegateError: it could not start; whatever had started is gone again.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signal(settings, rules, models, port, mode))
    finally:
        # Everything is gone: a late signal must not turn the exit code of the ending interpreter into its own.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _until_signal(settings: Settings, rules: Path, models: Path, port: int, mode: FollowMode) -> None:
    signalled = asyncio.Event()
    _on_signals(asyncio.get_running_loop(), signalled)
    work = asyncio.create_task(_serve(settings, rules, models, port, mode))
    waiter = asyncio.create_task(signalled.wait())
    await asyncio.wait([work, waiter], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not work.done():
        logger.info("stopping")
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return
    await work


def _on_signals(loop: asyncio.AbstractEventLoop, signalled: asyncio.Event) -> None:
    """Set `signalled` on SIGTERM and SIGINT. A second one changes nothing, as the stop is bounded anyway.

    The handlers outlive the loop, unlike the loop's own, so that no signal finds none.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(signalled.set)

    for number in SIGNALS:
        signal.signal(number, handle)


async def _serve(settings: Settings, rules: Path, models: Path, port: int, mode: FollowMode) -> None:
    """Start and serve until cancelled; leaving undoes everything that was started, last first."""
    async with contextlib.AsyncExitStack() as started:
        listener = started.enter_context(_bind(port))
        checked = await _checked(rules, mode)
        # Followed from here on, so that no change during the start is missed.
        serving: asyncio.Future[LocalStack] = asyncio.get_running_loop().create_future()
        follower = asyncio.create_task(_follow(rules, models, serving, mode))
        started.push_async_callback(cancel, follower)
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        stack = await started.enter_async_context(local_stack(settings, rules, models, checked, listener, mode))
        # Once more, so that leaving ends it before the requests and the fleet.
        started.push_async_callback(cancel, follower)
        click.echo(f"ready {url}")
        serving.set_result(stack)
        telling = asyncio.create_task(_tell_first_steps(url, stack, rules, models))
        started.push_async_callback(cancel, telling)
        await stack.wait()


async def _tell_first_steps(url: str, stack: LocalStack, rules: Path, models: Path) -> None:
    """Say on standard error what can be tried now."""
    engine = await stack.live_engine()
    if engine is not None:
        for line in await asyncio.to_thread(first_steps, url, engine, rules, models):
            say(line, err=True)


async def _checked(rules: Path, mode: FollowMode) -> CheckedRules:
    """The rules, once they passed what every change of them must pass.

    Raises:
        TidegateError: they did not.
    """
    source = followed_rules(rules, mode)
    try:
        checked = await source.check()
        cases = await source.test(checked)
    except RulesError:
        if mode is not FollowMode.UNCHECKED:
            logger.warning(
                "the rules are refused; correct them, or start with --follow unchecked if they only must compile"
            )
        raise
    for note in checked.notes:
        logger.warning("%s", note)
    logger.info("%s: %s; %s", rules, checked.summary, cases)
    return checked


@contextlib.contextmanager
def _bind(port: int) -> Iterator[socket.socket]:
    """Reserve the port before anything starts; nobody can connect until the server listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise StackError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); `tidegate status --stack http://{HOST}:{port}` shows a "
                "stack that has it; --port names another, and --port 0 takes a free one"
            ) from error
        yield listener


async def _follow(rules: Path, models: Path, serving: asyncio.Future[LocalStack], mode: FollowMode) -> None:
    """Publish every valid change of the rules; report and note every other.

    Models alone publish nothing: a folder may be half copied, and a rule says when it is to serve. But rules that were
    refused are tried again once a model has changed, since that may be what they lacked.
    """

    if mode is FollowMode.OFF:
        return

    async def changed(folders: frozenset[Path]) -> None:
        stack = await serving
        if rules in folders or stack.last_rejected is not None:
            await stack.follow_change()

    try:
        await follow((rules, models), changed)
        reason = "the watcher of the folders ended"
    except Exception as error:  # whatever it was, the status must say that nothing is followed
        logger.debug("following ended", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    logger.error("changes of %s and %s are no longer followed: %s; restart the stack", rules, models, reason)
    (await serving).follow_ended = reason
