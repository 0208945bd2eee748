"""Who calls, and what they may: which objectives and pins callers.yaml grants, and what is for operators alone."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from tidegate.rules import Caller, Engine, Objective, Target
from tidegate.rules.decision import Decision
from tidegate.rules.nearest import nearest, suggestion
from tidegate.web.errors import malformed, not_granted, operators_only, unknown_target
from tidegate.web.http import RawHeaders, Scope, header_values
from tidegate.web.metadata import MetadataCache

CallerOf = Callable[[Scope], str | None]
"""Gives the name of a request's caller, or None where the request has none. It is the only source of that name."""

_CALLER = "Tidegate-Caller"
_OVERRIDE = "Tidegate-Override"
_RAW_CALLER = _CALLER.lower().encode()
_RAW_OVERRIDE = _OVERRIDE.lower().encode()
_PIN = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})(?:/([1-9][0-9]{0,17}))?")
_LONGEST_SHOWN = 256
_VERSIONS_MAX_AGE_S = 1.0


def header_caller(scope: Scope) -> str | None:
    """The caller as its own header `Tidegate-Caller` says: good where callers are trusted, as on one's own machine.

    Raises:
        WebError: the header is sent twice.
    """
    found = header_values(scope["headers"], _RAW_CALLER)
    if len(found) > 1:
        raise malformed(f"the header {_CALLER} must be sent once", header=_CALLER)
    return found[0].decode("latin-1") if found else None


def flow_of(caller: Caller | None, scope: Scope) -> object:
    """Who a request takes turns as, where requests have to wait: its caller, else its connection."""
    return scope.get("client") if caller is None else caller.name


class Operators:
    """Holds requests for what operators may see to their token; without one there are no operators."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    def check(self, headers: RawHeaders) -> None:
        """Check that a request has the token: as `Authorization: Bearer`, or as `Tidegate-Operator` where an authorizer in
        front of the gateway has the other header for itself.

        Raises:
            WebError: it has not (401).
        """
        sent = header_values(headers, b"tidegate-operator")
        for value in header_values(headers, b"authorization"):
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                sent = [*sent, credentials.strip()]
        if self._token is None or not any(hmac.compare_digest(each, self._token) for each in sent):
            raise operators_only()


class Grants:
    """Holds requests to the grants of the live rules' callers.

    Args:
        caller_of: gives the name of a request's caller.
    """

    def __init__(self, caller_of: CallerOf = header_caller) -> None:
        self._caller_of = caller_of

    def check(self, engine: Engine, scope: Scope, objective: str) -> Caller | None:
        """The request's caller; None where the rules have no callers.

        An objective that nobody has is refused to a caller of some objectives like one that others have, so that none learns
        the names of the others. To a caller of all it is left to the handlers.

        Raises:
            WebError: the request's caller is unknown, or may not use the objective (403).
        """
        if engine.callers is None:
            return None
        caller = self._caller(engine, scope)
        if not caller.may_use(objective):
            near = suggestion(nearest(objective, caller.objectives or ()))
            raise not_granted(
                f"caller '{caller.name}' may not use '{objective}': `objectives` of the caller in callers.yaml lack it{near}",
                caller=caller.name,
                grant="objectives",
                objective=objective,
            )
        return caller

    def usable(self, engine: Engine, scope: Scope) -> list[Objective]:
        """The objectives that the request's caller may use.

        Raises:
            WebError: the request's caller is unknown (403).
        """
        if engine.callers is None:
            return list(engine.objectives.values())
        caller = self._caller(engine, scope)
        return [objective for name, objective in engine.objectives.items() if caller.may_use(name)]

    def _caller(self, engine: Engine, scope: Scope) -> Caller:
        assert engine.callers is not None
        name = self._caller_of(scope)
        if not name:
            source = f"send it in the header {_CALLER}" if self._caller_of is header_caller else "no authorizer gave it"
            raise not_granted(f"the caller's name is missing, and only the callers in callers.yaml may call: {source}")
        caller = engine.callers.get(name)
        if caller is None:
            shown = name[:_LONGEST_SHOWN]
            raise not_granted(f"caller '{shown}' is not one of the callers in callers.yaml", caller=shown)
        return caller


def pinned_target(engine: Engine, caller: Caller | None, headers: RawHeaders) -> Target | None:
    """The target that `Tidegate-Override` pins, or None without that header.

    Raises:
        WebError: the header is malformed (400), the caller has no grant for its target (403), or the target is not
            loaded (404).
    """
    found = header_values(headers, _RAW_OVERRIDE)
    if not found:
        return None
    model, version = _read_pin(found)
    name = model if version is None else f"{model}/{version}"
    if caller is None:
        raise not_granted(
            f"no caller may pin '{name}': the rules have no callers.yaml that grants `overrides`",
            grant="overrides",
            target=name,
        )
    if not caller.may_pin(model, version):
        raise not_granted(
            f"caller '{caller.name}' may not pin '{name}': `overrides` of the caller in callers.yaml lack it",
            caller=caller.name,
            grant="overrides",
            target=name,
        )
    target = engine.pin(model, version)
    if target is None:
        raise unknown_target(
            f"target '{name}' is not loaded: no rule reaches the model, and no `overrides` in callers.yaml name it",
            target=name,
        )
    return target


async def check_version(metadata: MetadataCache, engine: Engine, decision: Decision, deadline_s: float) -> None:
    """Check that the pinned target of an overridden decision has a version that its model serves.

    Where the rules leave the version to the model's own policy, only the model knows which it serves.

    Raises:
        DispatchError: nobody answered.
        WebError: the model does not serve that version (404), or says nothing readable.
    """
    target = decision.target
    if engine.names(target):
        return
    known = await metadata.get(decision, deadline_s, _VERSIONS_MAX_AGE_S, all_versions=True)
    if target.version not in known.versions:
        served = ", ".join(map(str, known.versions)) or "none"
        raise unknown_target(
            f"target '{target.name}' is not loaded: the versions of model '{target.model}' that are loaded are {served}; "
            f"`overrides` in callers.yaml that name '{target.name}' load it",
            target=target.name,
        )


def _read_pin(found: list[bytes]) -> tuple[str, int | None]:
    match = _PIN.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        raise malformed(f"the header {_OVERRIDE} must be sent once and be model or model/version", header=_OVERRIDE)
    return match[1].decode(), int(match[2]) if match[2] else None
