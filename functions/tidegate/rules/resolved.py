"""Resolution: fills in the versions that a bundle leaves open, so that a later push does not change what it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from tidegate.errors import BundleError
from tidegate.rules.bundle import FIRST_LINE, pack, resolution_of, revision_of, unpack
from tidegate.rules.bundle.manifest import Steps, Unresolved

NOWHERE: Mapping[str, Sequence[str]] = MappingProxyType({})


def resolve_bundle(
    data: bytes, versions: Mapping[str, int], steps: Steps, placement: Mapping[str, Sequence[str]] = NOWHERE
) -> bytes:
    """Return a bundle whose targets all have a version.

    What is not named in the arguments stays as it is. What is replaced is kept under `unresolved`, so that `rules_bundle`
    gives the rules back. A resolved bundle is resolved again from its rules.

    Args:
        data: a compiled bundle.
        versions: the version that serves each target, by the target's name.
        steps: the versions of steps that ensembles leave open, part of the revision since they change answers.
        placement: shards by model, preferred first, in place of those of the rules.

    Raises:
        BundleError: the bytes are not a whole bundle, or a target is left without a version.
    """
    bundle = unpack(rules_bundle(data))
    manifest = bundle.manifest
    targets = {name: (model, versions.get(name, version)) for name, (model, version) in manifest.targets.items()}
    without = sorted(name for name, (_, version) in targets.items() if version is None)
    if without:
        raise BundleError(f"no version was found for the targets {', '.join(without)}")
    models = manifest.fleet.models
    resolved = manifest._replace(
        targets=targets,
        fleet=replace(manifest.fleet, models={**models, **{model: tuple(each) for model, each in placement.items()}}),
        steps={ensemble: dict(pins) for ensemble, pins in sorted(steps.items()) if pins},
        unresolved=Unresolved(
            tuple(name for name, (_, version) in manifest.targets.items() if version is None),
            {model: models.get(model) for model in placement},
            manifest.steps,
        ),
    )
    return pack(resolved, bundle.lines[FIRST_LINE:], bundle.revision)


def rules_bundle(data: bytes) -> bytes:
    """Return the bundle of the rules that a bundle was resolved from: the same bytes as their files compile to. One that is
    not resolved stays as it is.

    Raises:
        BundleError: the bytes are not a whole bundle, or are not what was resolved from the rules that they name.
    """
    bundle = unpack(data)
    if resolution_of(bundle.revision) is None:
        return data
    manifest, kept = bundle.manifest, bundle.manifest.unresolved
    if kept is None or not manifest.targets.keys() >= {*kept.targets}:
        raise BundleError("the bundle is damaged: it does not say what was resolved; publish its rules again")
    models = {**manifest.fleet.models, **kept.models}
    unresolved = manifest._replace(
        targets={**manifest.targets, **{name: (manifest.targets[name][0], None) for name in kept.targets}},
        fleet=replace(manifest.fleet, models={name: each for name, each in models.items() if each is not None}),
        steps=kept.steps,
        unresolved=None,
    )
    rules = pack(unresolved, bundle.lines[FIRST_LINE:])
    if revision_of(rules) != bundle.rules:
        raise BundleError("the bundle is damaged: it was not resolved from the rules that it names; publish them again")
    return rules
