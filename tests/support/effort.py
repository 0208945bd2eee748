"""How much a run tries: what `make test` does within ten minutes, or all of it (`--full`).

Read while test modules are imported, so `choose` is called before that.
"""

from __future__ import annotations

import importlib.util

CI_SHARE = 8
FEWEST_EXAMPLES = 25
PLAIN_EXAMPLES = 100
"""What Hypothesis tries where a test does not say."""

_full = False


def choose(full: bool) -> None:
    """Choose the effort, and with it the profile of Hypothesis for tests that name no count.

    `ci` draws the same examples every time, so that a change is never blamed for what chance found; `full` draws others.
    """
    global _full
    _full = full
    if importlib.util.find_spec("hypothesis") is None:
        return
    from hypothesis import settings

    settings.register_profile("ci", max_examples=examples(PLAIN_EXAMPLES), deadline=None, derandomize=True)
    settings.register_profile("full", max_examples=PLAIN_EXAMPLES, deadline=None)
    settings.load_profile("full" if full else "ci")


def is_full() -> bool:
    """Whether everything is to be tried."""
    return _full


def examples(full: int) -> int:
    """How many of the `full` examples of a property are tried."""
    return full if _full else min(full, max(FEWEST_EXAMPLES, full // CI_SHARE))
