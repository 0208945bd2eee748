"""Resolution: what a bundle leaves open, made concrete, so that nothing that is pushed later changes what it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tidegate.errors import BundleError
from tidegate.rules.bundle import pack, resolution_of, unpack

Steps = Mapping[str, Mapping[str, int]]
"""The version of every step that its ensemble leaves open, by ensemble and step."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


def resolve_bundle(
    data: bytes, versions: Mapping[str, int], steps: Steps, placement: Mapping[str, Sequence[str]] = NOTHING
) -> bytes:
    """A bundle whose targets all have a version. What is not named in the arguments stays as it is; what is replaced is
    kept under `unresolved`, so that `rules_bundle` gives the rules back. A resolved bundle is resolved again from its rules.

    Args:
        data: a compiled bundle.
        versions: the version that serves each target, by the target's name.
        steps: the versions of steps that ensembles leave open. They are part of the bundle, and so of its revision,
            since two bundles that differ in them answer differently.
        placement: shards by model, preferred first, in place of those of the rules.

    Raises:
        BundleError: the bytes are no whole bundle, or a target is left without a version.
    """
    bundle = unpack(rules_bundle(data))
    manifest = bundle.manifest
    targets = {name: [model, versions.get(name, version)] for name, (model, version) in manifest["targets"].items()}
    without = sorted(name for name, (_, version) in targets.items() if version is None)
    if without:
        raise BundleError(f"no version was found for the targets {', '.join(without)}")
    fleet = manifest["fleet"]
    models = fleet["models"] | {model: list(shards) for model, shards in placement.items()}
    resolved = manifest | {
        "targets": targets,
        "fleet": fleet | {"models": models},
        "steps": {ensemble: dict(pins) for ensemble, pins in sorted(steps.items()) if pins},
        "unresolved": {
            "targets": [name for name, (_, version) in manifest["targets"].items() if version is None],
            "models": {model: fleet["models"].get(model) for model in placement},
            # Those of a bundle that was resolved before bundles named their rules, which counts as rules now.
            **({"steps": manifest["steps"]} if "steps" in manifest else {}),
        },
    }
    return pack(resolved, bundle.lines[2:], bundle.revision)


def rules_bundle(data: bytes) -> bytes:
    """The bundle of the rules that a bundle was resolved from: the same bytes as their files compile to. One that is not
    resolved stays as it is.

    Raises:
        BundleError: the bytes are no whole bundle, or are not what was resolved from the rules that they name.
    """
    bundle = unpack(data)
    if resolution_of(bundle.revision) is None:
        return data
    try:
        rules = pack(_unresolved(bundle.manifest), bundle.lines[2:])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            "the bundle is damaged: it does not say what was resolved; publish its rules again"
        ) from error
    if unpack(rules).revision != bundle.rules:
        raise BundleError("the bundle is damaged: it was not resolved from the rules that it names; publish them again")
    return rules


def _unresolved(manifest: Mapping[str, Any]) -> dict[str, Any]:
    kept, fleet = manifest["unresolved"], manifest["fleet"]
    targets = manifest["targets"] | {name: [manifest["targets"][name][0], None] for name in kept["targets"]}
    models = fleet["models"] | kept["models"]
    placed = {model: shards for model, shards in models.items() if shards is not None}
    rest = {key: value for key, value in manifest.items() if key not in ("steps", "unresolved")}
    steps = {"steps": kept["steps"]} if "steps" in kept else {}
    return rest | steps | {"targets": targets, "fleet": fleet | {"models": placed}}


def resolved_steps(manifest: Mapping[str, Any]) -> Steps:
    """The versions of open steps that the manifest of a resolved bundle fixes; empty for one that is not resolved."""
    steps: Steps = manifest.get("steps", NOTHING)
    return steps
