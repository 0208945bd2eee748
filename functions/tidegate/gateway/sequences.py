"""Checks of a request of a sequence: of the target that it pins, and of its `sequence_id`, so that none reaches Triton that crashes
it.

Triton 2.51 writes a text id, after 4 bytes for its length, into the 4 or 8 bytes of a numeric CORRID control, and overruns
them. The allocator's padding absorbs 20 bytes of text; 21 crash the server. A longer id, such as a UUID, is sent only if
the model's configuration shows that neither it nor a step of it has such a control.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from tidegate.errors import ModelAnswerError, Refusal, RefusedError, malformed
from tidegate.gateway.call import Call
from tidegate.gateway.dispatcher import Dispatcher
from tidegate.oip.paths import model_path
from tidegate.rules.decision import Decision, Target

LONGEST_SEQUENCE_ID_BYTES: Final = 128
"""Triton's own limit."""

HARMLESS_SEQUENCE_ID_BYTES: Final = 20

_MAX_AGE_S: Final = 10.0
_MOST_KEPT: Final = 1024
_MOST_STEPS: Final = 256


def check_sequence_id(given: Any) -> int | str:
    """Return an id that Triton accepts: a number that is not negative and has at most 64 bits, or a text.

    Raises:
        RefusedError: it is neither, or a text that is not valid Unicode, or too long.
    """
    if isinstance(given, str):
        check_text_id(given)
        return given
    if type(given) is not int or not 0 < given < 1 << 64:
        # In Triton's words.
        raise malformed("Unable to parse 'sequence_id': attempt to access JSON non-string as string")
    return given


def check_text_id(text: str) -> None:
    """Refuse a text id that Triton accepts for no model.

    Raises:
        RefusedError: it is not valid Unicode, or too long.
    """
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise malformed("the sequence_id holds half of a surrogate pair, which is not text") from None
    if size_bytes > LONGEST_SEQUENCE_ID_BYTES:
        raise malformed(f"the sequence_id is a text of more than {LONGEST_SEQUENCE_ID_BYTES} bytes")


def check_sequence_target(pinned: Target, target: Target) -> None:
    """Check that a request pins the target that its sequence has: its state is nowhere else. A pin without a version names
    whichever version the sequence has.

    Raises:
        RefusedError: it is another one.
    """
    is_any_version = pinned.name == pinned.model
    if pinned.model == target.model and (is_any_version or pinned.version == target.version):
        return
    has = target.model if target.version is None else f"{target.model}/{target.version}"
    raise RefusedError(
        Refusal.OTHER_TARGET,
        f"the request pins '{pinned.name}', but its sequence began on '{has}', which alone has its state: pin that or nothing, or "
        "start the sequence again, with sequence_start",
        pinned=pinned.name,
        target=has,
    )


class NumericIds:
    """Knows which models take sequence ids as numbers, from the models' configurations.

    Args:
        dispatcher: requests the configurations.
        clock: seconds that never run backwards.
    """

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._kept: dict[str, tuple[float, bool]] = {}

    async def check(self, decision: Decision, sequence_id: int | str | None, deadline_s: float) -> None:
        """Refuse an id that could crash the server of the decision's target. Numbers and short texts need no request to the model.

        Raises:
            DispatchError: no target answered.
            ModelAnswerError: a configuration cannot be read.
            RefusedError: the model, or a step of it, takes numbers, and the id is a long text.
        """
        if not isinstance(sequence_id, str) or len(sequence_id.encode()) <= HARMLESS_SEQUENCE_ID_BYTES:
            return
        if await self._takes_numbers(decision, deadline_s):
            raise malformed(
                f"the sequence_id is a text of more than {HARMLESS_SEQUENCE_ID_BYTES} bytes, and model "
                f"'{decision.target.model}' takes its ids as numbers: send a number, or a shorter text"
            )

    async def _takes_numbers(self, decision: Decision, deadline_s: float) -> bool:
        now_s = self._clock()
        kept = self._kept.get(decision.target.model)
        if kept is not None and now_s - kept[0] <= _MAX_AGE_S:
            return kept[1]
        alone = replace(decision, fallbacks=())
        found, open_models, seen = False, [decision.target.model], {decision.target.model}
        while open_models and not found:
            config = await self._config(alone, open_models.pop(), deadline_s)
            found = any(_numeric_controls(config)) or len(seen) > _MOST_STEPS
            steps = set(_steps(config)) - seen
            seen |= steps
            open_models.extend(steps)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[decision.target.model] = (now_s, found)
        return found

    async def _config(self, decision: Decision, model: str, deadline_s: float) -> Mapping[str, Any]:
        call = Call("GET", path=model_path(model, suffix="/config"))
        outcome = await self._dispatcher.dispatch(decision, call, deadline_s)
        try:
            config = json.loads(outcome.response.body)
            if outcome.response.status == 200 and isinstance(config, dict):
                return config
        except (ValueError, RecursionError):
            pass
        raise _unreadable(model)


def _numeric_controls(config: Mapping[str, Any]) -> Iterator[bool]:
    """Yield, for each control that receives the sequence id, whether it is a number."""
    try:
        for tensor in (config.get("sequence_batching") or {}).get("control_input") or ():
            for control in tensor["control"]:
                if control["kind"] == "CONTROL_SEQUENCE_CORRID":
                    yield control["data_type"] != "TYPE_STRING"
    except (KeyError, TypeError, AttributeError):
        raise _unreadable(str(config.get("name"))) from None


def _steps(config: Mapping[str, Any]) -> Iterator[str]:
    try:
        for step in (config.get("ensemble_scheduling") or {}).get("step") or ():
            yield str(step["model_name"])
    except (KeyError, TypeError, AttributeError):
        raise _unreadable(str(config.get("name"))) from None


def _unreadable(model: str) -> ModelAnswerError:
    return ModelAnswerError(f"the configuration of model {model!r} is not readable")
