"""The limits of callers and objectives: requests per second and requests at a time.

A rate is a token bucket in the form of the generic cell rate algorithm
(https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): one integer, the time at which the bucket will be full again. No
more than `rate × t + burst` requests pass in any `t` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from tidegate.errors import LimitedError
from tidegate.gateway.load import LoadLimit
from tidegate.rules import Caller, Engine, Limit, Objective

MOST_PAIRS: Final = 4096
"""Pairs of a caller and an objective for which the limits that apply are kept; others are looked up again."""

_S: Final = 1_000_000_000
_BUSY_BURST_NS: Final = _S
"""How much time of service a caller may use at once, where a concurrency limit is shared; see `Quota`."""


class Subject(StrEnum):
    """What a limit is of."""

    CALLER = "caller"
    OBJECTIVE = "objective"
    PAIR = "caller-objective"


class Quota:
    """What has been used of one limit.

    If `shares` processes enforce a limit, each lets pass its share of the rate, and of the concurrency, rounded up. A share of less
    than one request is enforced as time, too: the process serves for at most `concurrency / shares` of the time.

    Args:
        subject: what the limit is of.
        name: the subject in words, for error messages.
        limit: the limit.
        shares: how many processes share it (at least 1).
    """

    __slots__ = (
        "_burst", "_busy_until_ns", "_concurrency", "_full_at_ns", "_interval_ns", "_limit", "_most_in_flight", "_name", "_shares",
        "_subject", "_tolerance_ns", "in_flight",
    )  # fmt: skip

    def __init__(self, subject: Subject, name: str, limit: Limit, shares: int) -> None:
        self._subject = subject
        self._name = name
        self._shares = shares
        self._full_at_ns = 0
        self._busy_until_ns = 0
        self.in_flight = 0
        self._use(limit)

    def _use(self, limit: Limit) -> None:
        self._limit = limit
        self._concurrency = limit.concurrency
        self._most_in_flight = 0 if limit.concurrency is None else -(-limit.concurrency // self._shares)
        self._burst = max(1.0, limit.burst_size / self._shares)
        rate = limit.rate_per_s
        # Rounded up, so that never too much passes.
        self._interval_ns = 0 if rate is None else -int(-_S * self._shares // rate)
        self._tolerance_ns = int((self._burst - 1.0) * self._interval_ns)

    def change(self, limit: Limit, now_ns: int) -> None:
        """Use another limit from now on. What was used of the old one stays used, so that a publish refills nothing."""
        if limit == self._limit:
            return
        used = max(0, self._full_at_ns - now_ns) / self._interval_ns if self._interval_ns else 0.0
        self._use(limit)
        self._full_at_ns = now_ns + int(min(used, self._burst) * self._interval_ns)

    def is_idle(self, now_ns: int) -> bool:
        """Return whether nothing of the limit is in use, so that forgetting it changes nothing."""
        return not self.in_flight and max(self._full_at_ns, self._busy_until_ns) <= now_ns

    def check_rate(self, now_ns: int) -> None:
        """Raises `LimitedError`: the bucket is empty."""
        early_ns = self._full_at_ns - self._tolerance_ns - now_ns
        if self._interval_ns and early_ns > 0:
            raise self._rate_error(early_ns)

    def check_concurrency(self, now_ns: int) -> None:
        """Raises `LimitedError`: as many requests are under way as may be."""
        concurrency = self._concurrency
        if concurrency is None:
            return
        if self.in_flight >= self._most_in_flight:
            raise self._concurrency_error(concurrency, 0)
        if self._shares > concurrency:
            early_ns = self._busy_until_ns - _BUSY_BURST_NS * self._shares // concurrency - now_ns
            if early_ns > 0:
                raise self._concurrency_error(concurrency, early_ns)

    def enter(self, now_ns: int) -> None:
        """Count a request that was admitted."""
        self.in_flight += 1
        if self._interval_ns:
            self._full_at_ns = max(self._full_at_ns, now_ns) + self._interval_ns

    def leave(self, took_ns: int, now_ns: int) -> None:
        """Count the end of a request that `enter` counted."""
        self.in_flight -= 1
        concurrency = self._concurrency
        if concurrency is not None and self._shares > concurrency:
            self._busy_until_ns = max(self._busy_until_ns, now_ns) + took_ns * self._shares // concurrency

    def _rate_error(self, early_ns: int) -> LimitedError:
        limit = self._limit
        rate, size = limit.rate_per_s or 0.0, limit.burst_size
        quota, window_s = as_window(rate)
        return LimitedError(
            f"{self._subject}-rate",
            f"{self._name} gets {rate:g} requests per second (rate_per_s), and {size:g} at once: too many have come",
            quota,
            window_s,
            -(-early_ns // _S),
        )

    def _concurrency_error(self, concurrency: int, early_ns: int) -> LimitedError:
        return LimitedError(
            f"{self._subject}-concurrency",
            f"{self._name} gets {concurrency} requests at a time (concurrency): as many are under way",
            concurrency,
            None,
            max(1, -(-early_ns // _S)),
        )


class Lease:
    """What a request holds of its limits, until its protocol releases it: when the answer, or the stream, has ended."""

    __slots__ = ("_holder", "_load", "_quotas", "_since_ns")

    def __init__(self) -> None:
        self._holder: Quotas | None = None
        self._quotas: tuple[Quota, ...] = ()
        self._since_ns = 0
        self._load: LoadLimit | None = None

    def hold(self, holder: Quotas, quotas: tuple[Quota, ...], since_ns: int) -> None:
        """Hold one request of each of `quotas`, since a time on the holder's clock."""
        self._holder, self._quotas, self._since_ns = holder, quotas, since_ns

    def count(self, load: LoadLimit) -> None:
        """Hold one of the requests of the process."""
        self._load = load

    def release(self) -> None:
        """Give back what the request holds. Only the first call does."""
        load, holder = self._load, self._holder
        if load is not None:
            self._load = None
            load.leave()
        if holder is not None:
            self._holder = None
            holder.give_back(self._quotas, self._since_ns)


class Quotas:
    """Holds requests to the limits of the live rules. What is used of a limit outlives a change of the rules.

    Args:
        shares: how many processes share the limits (at least 1).
        clock_ns: nanoseconds of a clock that never runs backwards.
    """

    def __init__(self, shares: int = 1, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._shares = shares
        self._clock_ns = clock_ns
        self._engine: Engine | None = None
        self._quotas: dict[tuple[Subject, str | None, str | None], Quota] = {}
        self._applying: dict[tuple[str | None, str], tuple[Quota, ...]] = {}
        self._has_limits = False

    def limit(self, engine: Engine) -> bool:
        """Return whether the live rules limit any caller or objective; without, no request needs `acquire`."""
        if engine is not self._engine:
            self._follow(engine)
        return self._has_limits

    def acquire(self, engine: Engine, caller: Caller | None, objective: Objective, lease: Lease) -> None:
        """Count a request against every limit that applies to it, or against none of them.

        Args:
            engine: the live rules.
            caller: its caller, one of those of the rules.
            objective: its objective, one of those of the rules.
            lease: holds what the request takes.

        Raises:
            LimitedError: a rate, else a concurrency, is used up.
        """
        if engine is not self._engine:
            self._follow(engine)
        key = (None if caller is None else caller.name, objective.name)
        quotas = self._applying.get(key)
        if quotas is None:
            if len(self._applying) >= MOST_PAIRS:
                self._applying.clear()
            quotas = self._applying[key] = self._of(caller, objective)
        if not quotas:
            return
        now_ns = self._clock_ns()
        for quota in quotas:
            quota.check_rate(now_ns)
        for quota in quotas:
            quota.check_concurrency(now_ns)
        for quota in quotas:
            quota.enter(now_ns)
        lease.hold(self, quotas, now_ns)

    def give_back(self, quotas: tuple[Quota, ...], since_ns: int) -> None:
        """Count the end of a request that was admitted at `since_ns`."""
        now_ns = self._clock_ns()
        for quota in quotas:
            quota.leave(now_ns - since_ns, now_ns)

    def _follow(self, engine: Engine) -> None:
        """Forget which limits apply, and the limits of which nothing is in use."""
        self._engine = engine
        now_ns = self._clock_ns()
        self._applying = {}
        limits = [objective.limit for objective in engine.objectives.values()]
        for caller in (engine.callers or {}).values():
            limits += [caller.limit, *(caller.limits or {}).values()]
        self._has_limits = any(_applies(limit) for limit in limits)
        self._quotas = {key: quota for key, quota in self._quotas.items() if not quota.is_idle(now_ns)}

    def _of(self, caller: Caller | None, objective: Objective) -> tuple[Quota, ...]:
        found = []
        if caller is not None:
            name = f"caller '{caller.name}'"
            found.append(self._quota(Subject.CALLER, name, caller.limit, caller.name, None))
            if caller.limits is not None and objective.name in caller.limits:
                pair = f"{name} with objective '{objective.name}'"
                limit = caller.limits[objective.name]
                found.append(self._quota(Subject.PAIR, pair, limit, caller.name, objective.name))
        name = f"objective '{objective.name}'"
        found.append(self._quota(Subject.OBJECTIVE, name, objective.limit, None, objective.name))
        return tuple(quota for quota in found if quota is not None)

    def _quota(
        self, subject: Subject, name: str, limit: Limit, caller: str | None, objective: str | None
    ) -> Quota | None:
        if not _applies(limit):
            return None
        key = (subject, caller, objective)
        quota = self._quotas.get(key)
        if quota is None:
            quota = self._quotas[key] = Quota(subject, name, limit, self._shares)
        else:
            quota.change(limit, self._clock_ns())
        return quota


class QuotasElsewhere(Quotas):
    """Refuses every request that a limit applies to, as another process counts those."""

    def acquire(self, engine: Engine, caller: Caller | None, objective: Objective, lease: Lease) -> None:  # noqa: ARG002  # as its base
        """Refuse a request if a limit applies to it; see `Quotas.acquire`.

        Raises:
            LimitedError: a limit applies.
        """
        if self._of(caller, objective):
            raise LimitedError(Subject.OBJECTIVE, "another process counts this request", 0, None, 1)


def _applies(limit: Limit) -> bool:
    return limit.rate_per_s is not None or limit.concurrency is not None


def as_window(rate_per_s: float) -> tuple[int, int]:
    """Return a rate as a number of requests in a window of whole seconds, the shortest one in which it is whole."""
    for window_s in range(1, 61):
        quota = rate_per_s * window_s
        if quota >= 1.0 and abs(quota - round(quota)) <= 1e-6 * quota:
            return round(quota), window_s
    return max(1, int(rate_per_s * 60)), 60 if rate_per_s * 60 >= 1.0 else int(1.0 / rate_per_s)
