"""Reports of the served revision to the registry of gateways."""

from __future__ import annotations

import asyncio
import logging

from tidegate.ports import GatewayReport, GatewayReports

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0


class RevisionReports:
    """Reports a revision when it is new, and at least every `interval_s` seconds.

    Each report has a task of its own, since a slow or failing registry must not delay polls. After one that failed the next
    waits `FIRST_WAIT_S`, and twice as long after each further one, up to `interval_s`: the registry that refuses the reports of
    too many gateways must not get more of them for that.
    """

    def __init__(self, registry: GatewayReports, interval_s: float) -> None:
        self._registry = registry
        self._interval_s = interval_s
        self._last: GatewayReport | None = None
        self._failures = 0
        self._tried_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def send_if_due(self, report: GatewayReport) -> None:
        """Start to send a report, unless one is being sent, or a recent one had the same revision."""
        last = self._last
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 30), self._interval_s)
        if self._failures and 0 <= report.seen_at - self._tried_at < wait_s:
            return
        is_recent = last is not None and 0 <= report.seen_at - last.seen_at < self._interval_s
        if is_busy(self._task) or (is_recent and last is not None and last.revision == report.revision):
            return
        self._tried_at = report.seen_at
        self._task = asyncio.get_running_loop().create_task(self._send(report))

    def stop(self) -> None:
        """Cancel a report that is being sent."""
        if self._task is not None:
            self._task.cancel()

    async def _send(self, report: GatewayReport) -> None:
        try:
            await self._registry.report(report)
        except Exception as error:  # noqa: BLE001  # nothing awaits this task
            if not self._failures:
                logger.warning("the served revision cannot be reported to the registry: %s", error)
            self._failures += 1
        else:
            self._last, self._failures = report, 0


def is_busy(task: asyncio.Task[None] | None) -> bool:
    """Return whether a task still runs on the current event loop; those of another loop have ended with it."""
    return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()
