"""A replay's figures in words, for the terminal and for the picture."""

from __future__ import annotations

from math import isfinite

from tidegate.rules.replay.races import Configured
from tidegate.rules.replay.report import Shares


def percent(share: float) -> str:
    """A share (0–1) in percent, with two decimals, or four where it is smaller than two show.

    Only nothing is 0.00 % and only all is 100.00 %: a share that would round to either is below or above a bound.
    """
    value = 100 * share
    if 0 < value < 0.0001:
        return "<0.0001 %"
    if 0 < value < 0.01:
        return f"{value:.4f} %"
    return ">99.99 %" if 99.995 <= value < 100 else f"{value:.2f} %"


def race_words(race: Configured) -> str:
    """What a split or an experiment is."""
    if race.kind == "split":
        return "split"
    return f"experiment {race.experiment}" + (", allocated by the caller" if race.kind == "caller" else "")


def counted_words(shares: Shares) -> str:
    """How many of what were counted."""
    return f"{shares.total:,} {shares.unit}"


def verdict_words(shares: Shares) -> str:
    """The test, and what it says."""
    test = shares.test
    if test is None:
        return f"no test: {shares.untested}"
    statistic = f"{test.statistic:.2f}" if isfinite(test.statistic) else "infinite"
    degrees = "1 degree" if test.degrees == 1 else f"{test.degrees} degrees"
    figures = f"chi-square {statistic}, {degrees} of freedom, p = {test.p_value:.3g}"
    match shares.verdict:
        case "mismatch":
            return f"SAMPLE RATIO MISMATCH, {figures}"
        case "suspect":
            return f"suspect, {figures}, but of requests, which are not independent of each other"
        case _:
            return f"as configured, {figures}"
