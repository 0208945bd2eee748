"""Makes the files of the corpus: what goes in, and what the engine says to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tidegate.errors import ContextError, NoRuleError
from tidegate.rules import Decision, Engine, Objective, compile_directory, load_bundle
from tidegate.rules.bundle import FORMAT_VERSION
from tidegate.rules.sticky import HASH_VERSION
from tidegate.rules.unknown_attributes import unknown_attributes
from tidegate.rules.values import accepts, within

from conformance.contexts import Mentioned, by_hand, contexts
from conformance.vectors import hashes, texts, versions

FOLDER = Path(__file__).parent
RULES = FOLDER / "rules"
CORPUS = FOLDER / "corpus"

CORPUS_VERSION = 1
"""Raise it with every change of the form of a file, or of what an existing case expects."""

CONTEXTS_PER_OBJECTIVE = 200
ABOUT = {"corpus_version": CORPUS_VERSION, "format_version": FORMAT_VERSION, "hash_version": HASH_VERSION}

Failure = tuple[str, str]
"""A mistake of a context: its kind (missing, type, domain, unknown, key), and the attribute."""


def corpus() -> dict[str, bytes]:
    """Return the files of the corpus by name."""
    bundle = compile_directory(RULES)
    engine = load_bundle(bundle)
    return {
        "rules.bundle": bundle,
        "hashes.jsonl": _lines(hashes()),
        "versions.jsonl": _lines(versions()),
        "texts.jsonl": _lines(texts()),
        "decisions.jsonl": _lines(_decisions(engine, bundle)),
    }


def _lines(cases: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a case per line, after a line about the corpus. Text outside ASCII is escaped: no editor may change its form."""
    return b"".join(json.dumps(each, allow_nan=False).encode() + b"\n" for each in (ABOUT, *cases))


def _decisions(engine: Engine, bundle: bytes) -> Iterator[dict[str, Any]]:
    mentioned = Mentioned(bundle)
    for name, objective in engine.objectives.items():
        made = contexts(objective, mentioned.values(name), mentioned.experiments(name), CONTEXTS_PER_OBJECTIVE)
        for context, at in [*by_hand(name), *made]:
            expected = expect(engine, objective, context, at)
            yield {"objective": name, "at": at, "context": context, "expect": expected}


def expect(engine: Engine, objective: Objective, context: Mapping[str, Any], at: float) -> dict[str, Any]:
    """Return what every engine must make of a context: one of `decision`, `no_rule` and `errors`."""
    try:
        decision = engine.decide(objective.name, context, at=at)
    except NoRuleError:
        return {"no_rule": True}
    except ContextError as error:
        failures = sorted(set(failures_of(objective, context))) or [("key", error.attribute)]
        assert error.attribute in {attribute for _, attribute in failures}
        return {"errors": [list(each) for each in failures]}
    return {"decision": decided(decision), **_sampled(engine, decision, context)}


def decided(decision: Decision) -> dict[str, Any]:
    """Return a decision without what the case says beside it: the objective, and the revision of the bundle."""
    return {name: value for name, value in decision.as_dict().items() if name not in ("objective", "revision")}


def _sampled(engine: Engine, decision: Decision, context: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the shadows that copy the request; nothing where that is left to chance."""
    chosen = set()
    for least in (0.0, 1.0 - 2**-53):
        shadows = engine.sampled(decision, context, partial(float, least))
        chosen.add(tuple(shadow.target.name for shadow in shadows))
    return {"sampled": list(chosen.pop())} if decision.shadows and len(chosen) == 1 else {}


def failures_of(objective: Objective, context: Mapping[str, Any]) -> Iterator[Failure]:
    """Yield every mistake of a context. An engine reports any one of them."""
    for name, attribute in objective.attributes.items():
        if name not in context:
            if attribute.required:
                yield "missing", name
        elif not accepts(attribute.type, context[name]):
            yield "type", name
        elif not within(attribute, context[name]):
            yield "domain", name
    allocations = context.get("allocations", {})
    if not isinstance(allocations, Mapping) or not all(
        isinstance(cell, int | str) and not isinstance(cell, bool) for cell in allocations.values()
    ):
        yield "type", "allocations"
    if objective.refuses_unknown:
        yield from (("unknown", each.name) for each in unknown_attributes(objective, context))
