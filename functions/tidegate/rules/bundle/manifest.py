"""The manifest: fleet, layers, targets, callers, and the contract of each objective with the place of its lines.

In JSON, defaults are left out, and `"*"` means everything in a caller's grants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple, get_args

from tidegate.rules.bundle.json_values import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    POSITIVE,
    SCALAR,
    TEXT,
    TEXTS,
    Kind,
    Record,
    UnfitError,
    array,
    encode,
    named,
    one_of,
    or_none,
    pair,
    table,
)
from tidegate.rules.contract import (
    Attribute,
    AttributeType,
    Caller,
    Fleet,
    Limit,
    Objective,
    Priority,
    Ranking,
    Responses,
    Shard,
    Traffic,
)
from tidegate.rules.sticky import HASH_VERSION

Steps = Mapping[str, Mapping[str, int]]
"""The version of every step that its ensemble leaves open, by ensemble and step."""

ModelVersion = tuple[str, int | None]
"""A resolved target: a model and its pinned version (None: the model's version policy decides)."""

EVERYTHING = "*"


class ObjectiveEntry(NamedTuple):
    """The manifest's entry of an objective.

    `targets` are all that its rules can reach, as written, sorted. `line` is the place of its index among the lines of the
    bundle; its rules follow.
    """

    contract: Objective
    targets: tuple[str, ...]
    line: int


class Unresolved(NamedTuple):
    """The parts of the rules that resolution replaced, from which the unresolved rules can be restored.

    `targets` are those without a version, `models` the shards of each model that was placed elsewhere (None: it had none),
    `steps` those of a bundle that was resolved before bundles named their rules, and which counts as rules now.
    """

    targets: tuple[str, ...]
    models: Mapping[str, tuple[str, ...] | None]
    steps: Steps | None = None


class Manifest(NamedTuple):
    """The second line of a bundle.

    `layers` has the attributes of each layer's key, `targets` what the name of every target resolves to. `callers` is None
    where every caller may call. `steps` and `unresolved` are None where the bundle is not resolved.
    """

    fleet: Fleet
    layers: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, ModelVersion]
    objectives: Mapping[str, ObjectiveEntry]
    callers: Mapping[str, Caller] | None = None
    steps: Steps | None = None
    unresolved: Unresolved | None = None
    hash_version: int = HASH_VERSION


class _Layer(NamedTuple):
    key: tuple[str, ...]


def encode_manifest(manifest: Manifest) -> bytes:
    return encode(_MANIFEST.write(manifest))


def decode_manifest(line: bytes) -> Manifest:
    value = json.loads(line)
    # Bundles of the first releases do not name the version of the hash.
    manifest = _MANIFEST.read({"hash_version": HASH_VERSION, **value} if isinstance(value, dict) else value)
    if any(model not in manifest.fleet.models for model, _ in manifest.targets.values()):
        raise UnfitError("a target's model is not in the fleet")
    return manifest


ATTRIBUTE = Record(
    Attribute,
    type=one_of(*get_args(AttributeType)),
    required=BOOLEAN,
    values=array(SCALAR),
    default=or_none(Kind(lambda value: (TEXTS if isinstance(value, list) else SCALAR).read(value))),
    header=TEXT,
)
LIMIT = Record(Limit, rate_per_s=NUMBER, burst=INTEGER, concurrency=INTEGER)
OBJECTIVE = Record(
    Objective,
    renamed={"context": "attributes", "unknown_attributes": "refuses_unknown", "limits": "limit"},
    summary=TEXT,
    owner=TEXT,
    context=named(ATTRIBUTE),
    sticky_key=TEXTS,
    timeout_ms=or_none(INTEGER),
    allocations=TEXTS,
    unknown_attributes=Kind(lambda value: TEXT.read(value) == "refuse", lambda _: "refuse"),
    ranking=Record(Ranking, output=TEXT, k=POSITIVE),
    limits=LIMIT,
    loggable=TEXTS,
    responses=Kind(Responses),
    degraded=TEXT,
)
_ENTRY = Record(ObjectiveEntry, inlined=("contract", OBJECTIVE), targets=TEXTS, line=POSITIVE)
SHARD = Record(Shard, replicas=POSITIVE, scale_to_zero=BOOLEAN)
_GRANTS = Kind(
    lambda value: None if value == EVERYTHING else TEXTS.read(value),
    lambda names: EVERYTHING if names is None else names,
)
CALLER = Record(
    Caller,
    always=("objectives", "overrides", "traffic"),
    inlined=("limit", LIMIT),
    renamed={"bundle": "reads_bundle"},
    objectives=_GRANTS,
    overrides=_GRANTS,
    traffic=Kind(Traffic),
    limits=table(LIMIT),
    priority=Kind(Priority),
    marks=array(Kind(Traffic)),
    bundle=BOOLEAN,
)
_STEPS = table(table(INTEGER))
_LAYER = Record(_Layer, key=TEXTS)
_MANIFEST = Record(
    Manifest,
    always=("hash_version",),
    fleet=Record(Fleet, shards=named(SHARD), models=table(TEXTS), aliases=table(TEXT)),
    layers=table(Kind(lambda value: _LAYER.read(value).key, lambda key: {"key": key})),
    targets=table(pair(TEXT, or_none(INTEGER))),
    objectives=named(_ENTRY),
    callers=named(CALLER),
    steps=_STEPS,
    unresolved=Record(Unresolved, targets=TEXTS, models=table(or_none(TEXTS)), steps=_STEPS),
    hash_version=INTEGER,
)
