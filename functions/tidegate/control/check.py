"""Check: the rules compile, the models that they need can be served, and every target has a golden request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tidegate.control.assign import plan_targets, settled_steps
from tidegate.control.desired import Desired
from tidegate.control.plane import ControlPlane
from tidegate.control.steps import Step
from tidegate.errors import PublishError
from tidegate.model_layout import SAMPLES
from tidegate.ports.sources import CheckedRules, ModelsSource, RulesSource
from tidegate.rules import load_bundle
from tidegate.tasks import first_failure


async def check_rules(plane: ControlPlane, rules: RulesSource, step: Step) -> tuple[CheckedRules, Desired]:
    """Check rules, and concurrently read what the fleet must hold.

    Raises:
        TidegateError: the rules have errors, or a store did not answer.
    """
    # The first read also makes the clients of the stores, which takes as long as proving rules does.
    with first_failure():
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(plane.reader.read())
            checked = await rules.check()
    step.outcome = checked.summary
    for note in checked.notes:
        step.note(note)
    return checked, reading.result()


async def check_models(
    plane: ControlPlane, checked: CheckedRules, models: ModelsSource, desired: Desired, step: Step
) -> Mapping[str, Path]:
    """Check the models of a folder that rules need. Return the folders that may have to be pushed.

    A model that is stored exactly as in its folder was checked when it was pushed; it is checked again only with a changed step.

    Raises:
        ModelConfigError: they have errors; the message has every one.
    """
    settled = await settled_steps(plane, desired)
    loads = await plan_targets(models.catalog, load_bundle(checked.bundle).targets(), settled)
    needed = {load: folder for load in loads if (folder := models.folder(load.model)) is not None}
    unpushed = set(await plane.ports.models.unpushed({load.model: folder for load, folder in needed.items()}))
    affected = [load.model for load in needed if not unpushed.isdisjoint((load.model, *load.steps))]
    for warning in await models.check(affected) if affected else ():
        step.note(warning)
    return {load.model: folder for load, folder in needed.items() if load.model in unpushed}


async def check_samples(plane: ControlPlane, checked: CheckedRules, source: ModelsSource | None) -> str:
    """Refuse rules with a target that has no golden request, neither in its folder nor pushed before.

    Raises:
        PublishError: there are such targets; it names them.
    """
    models = sorted({target.model for target in load_bundle(checked.bundle).targets()})
    pushed = await asyncio.gather(*(plane.ports.models.samples(model) for model in models))
    lacking = [
        model
        for model, found in zip(models, pushed, strict=True)
        if not found and not _has_samples(None if source is None else source.folder(model))
    ]
    if lacking:
        raise PublishError(
            "samples",
            f"targets without a golden request: {', '.join(lacking)}; write samples/*.json for each, or publish "
            "without requiring samples",
        )
    return f"{len(models)} models have golden requests"


def _has_samples(folder: Path | None) -> bool:
    return folder is not None and any((folder / SAMPLES).glob("*.json"))
