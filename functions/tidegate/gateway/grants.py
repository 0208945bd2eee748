"""The grants of callers.yaml: the objectives that a caller may use, and the targets that it may pin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from tidegate.errors import Refusal, RefusedError, malformed
from tidegate.rules import Caller, Engine, Objective, Target, Traffic
from tidegate.rules.nearest import nearest, suggestion

CallerOf = Callable[[Any], str | None]
"""Return the caller's name from a request's identity (the ASGI scope), or None. Nothing else provides that name."""

_PIN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})(?:/([1-9][0-9]{0,17}))?", re.ASCII)
_CLASSES: Final = {traffic.value.encode(): traffic for traffic in Traffic if traffic is not Traffic.SHADOW}
_LONGEST_SHOWN: Final = 256


class Grants:
    """Checks requests against the grants of the callers in the live rules.

    Args:
        caller_of: returns the name of a request's caller.
        name_missing: how to send the caller's name, for the error when it is missing.
    """

    def __init__(self, caller_of: CallerOf, name_missing: str) -> None:
        self._caller_of = caller_of
        self._name_missing = name_missing

    def check(self, engine: Engine, identity: Any, objective: str) -> Caller | None:
        """Return the request's caller; None if the rules have no callers.

        A caller of some objectives gets the same refusal for an unknown objective as for one of another caller, so that it
        cannot learn which others exist. For a caller of all objectives the service raises the error.

        Raises:
            RefusedError: the request's caller is unknown, or may not use the objective.
        """
        caller = self.caller(engine, identity)
        if caller is None:
            return None
        if not caller.may_use(objective):
            near = suggestion(nearest(objective, caller.objectives or ()))
            raise _not_granted(
                f"caller '{caller.name}' may not use '{objective}': `objectives` of the caller in callers.yaml lack it{near}",
                caller=caller.name,
                grant="objectives",
                objective=objective,
            )
        return caller

    def caller(self, engine: Engine, identity: Any) -> Caller | None:
        """Return the request's caller; None if the rules have no callers.

        Raises:
            RefusedError: the request's caller is unknown.
        """
        return None if engine.callers is None else self._caller(engine, identity)

    def usable(self, engine: Engine, identity: Any) -> list[Objective]:
        """Return the objectives that the request's caller may use.

        Raises:
            RefusedError: the request's caller is unknown.
        """
        if engine.callers is None:
            return list(engine.objectives.values())
        caller = self._caller(engine, identity)
        return [objective for name, objective in engine.objectives.items() if caller.may_use(name)]

    def _caller(self, engine: Engine, identity: Any) -> Caller:
        assert engine.callers is not None
        name = self._caller_of(identity)
        if not name:
            raise _not_granted(
                f"the caller's name is missing, and only the callers in callers.yaml may call: {self._name_missing}"
            )
        caller = engine.callers.get(name)
        if caller is None:
            shown = name[:_LONGEST_SHOWN]
            raise _not_granted(f"caller '{shown}' is not one of the callers in callers.yaml", caller=shown)
        return caller


def pinned_target(engine: Engine, caller: Caller | None, pins: Sequence[bytes]) -> Target | None:
    """Return the target that a request pins, or None if it pins none.

    Args:
        engine: the live rules.
        caller: the request's caller.
        pins: every `Tidegate-Override` of the request: `model` or `model/version`.

    Raises:
        RefusedError: the pin is malformed, the caller has no grant for its target, or the target is not loaded.
    """
    if not pins:
        return None
    model, version = _read_pin(pins)
    name = model if version is None else f"{model}/{version}"
    if caller is None:
        raise _not_granted(
            f"no caller may pin '{name}': the rules have no callers.yaml that grants `overrides`",
            grant="overrides",
            target=name,
        )
    if not caller.may_pin(model, version):
        raise _not_granted(
            f"caller '{caller.name}' may not pin '{name}': `overrides` of the caller in callers.yaml lack it",
            caller=caller.name,
            grant="overrides",
            target=name,
        )
    target = engine.pin(model, version)
    if target is None:
        raise RefusedError(
            Refusal.UNKNOWN_TARGET,
            f"target '{name}' is not loaded: no rule reaches the model, and no `overrides` in callers.yaml name it",
            target=name,
        )
    return target


def traffic_of(caller: Caller | None, marks: Sequence[bytes]) -> Traffic:
    """Return the traffic class of a request.

    Args:
        caller: its caller.
        marks: every `Tidegate-Traffic` of the request.

    Raises:
        RefusedError: the mark is not a traffic class, or the caller may not give it.
    """
    own = Traffic.REAL if caller is None else caller.traffic
    if not marks:
        return own
    mark = _CLASSES.get(marks[0]) if len(marks) == 1 else None
    if mark is None:
        raise malformed(
            "the header Tidegate-Traffic must be sent once and be real, synthetic or replay", header="Tidegate-Traffic"
        )
    if mark is own or (caller is not None and mark in caller.marks):
        return mark
    if caller is None:
        why = "no caller may mark its requests: the rules have no callers.yaml that grants `marks`"
        raise _not_granted(why, grant="marks", traffic=mark.value)
    raise _not_granted(
        f"caller '{caller.name}' may not mark its requests as {mark}: `marks` of the caller in callers.yaml lack it",
        caller=caller.name,
        grant="marks",
        traffic=mark.value,
    )


def _read_pin(pins: Sequence[bytes]) -> tuple[str, int | None]:
    match = _PIN.fullmatch(pins[0].decode("latin-1")) if len(pins) == 1 else None
    if match is None:
        raise malformed(
            "the header Tidegate-Override must be sent once and be model or model/version", header="Tidegate-Override"
        )
    return match[1], int(match[2]) if match[2] else None


def _not_granted(detail: str, **details: object) -> RefusedError:
    return RefusedError(Refusal.NOT_GRANTED, detail, **details)
