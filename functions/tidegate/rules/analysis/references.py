"""What fleet.yaml and layers.yaml declare and nothing uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tidegate.rules.analysis.kinds import CheckFinding
from tidegate.rules.program import Program
from tidegate.rules.source import Location

Places = Callable[[str, Location], tuple[str, int]]
"""Where something stands: from the stem of a file (`fleet`, `layers`) and a path of keys to the file's name and line."""


def unused(program: Program, places: Places) -> Iterator[CheckFinding]:
    """The aliases, models, layers and experiments that nothing uses, in the order of their files.

    A caller's `overrides` use the models that they name: these are loaded, as the caller may pin them.
    """
    world = program.world
    named = {target for objective in program.objectives for target in objective.targets}
    pinned = {target for caller in (program.callers or {}).values() for target in caller.overrides or ()}
    models = {target.partition("/")[0] for target in (*named, *pinned, *world.aliases.values())}
    for model in world.models:
        if model not in models:
            yield _finding(
                "unused-model",
                places("fleet", ("models", model)),
                f"no rule, fallback, shadow, alias or caller's overrides name model {model!r}",
                "delete it, or serve it; until then no shard loads it",
            )
    for alias, target in world.aliases.items():
        if alias not in named:
            yield _finding(
                "unused-alias",
                places("fleet", ("aliases", alias)),
                f"no rule, fallback or shadow names alias {alias!r} ({target})",
                "delete it, or serve it",
            )
    yield from _unused_experiments(program, places)


def _unused_experiments(program: Program, places: Places) -> Iterator[CheckFinding]:
    run = {
        (rule.body["experiment"].get("layer"), rule.body["experiment"]["id"])
        for objective in program.objectives
        for rule in objective.rules
        if rule.body.get("experiment", {}).get("allocate") == "layer"
    }
    for name, layer in program.world.layers.items():
        if not any((name, experiment) in run for experiment in layer.experiments):
            yield _finding(
                "unused-layer",
                places("layers", (name,)),
                f"no rule runs an experiment of layer {name!r}",
                "delete it, or write a rule for one of its experiments",
            )
            continue
        for experiment in layer.experiments:
            if (name, experiment) not in run:
                yield _finding(
                    "unused-experiment",
                    places("layers", (name, "experiments", experiment)),
                    f"experiment {experiment!r} owns buckets of layer {name!r}, and no rule runs it",
                    "delete it, so that others may have its buckets, or write its rule",
                )


def _finding(kind: str, place: tuple[str, int], message: str, hint: str) -> CheckFinding:
    return CheckFinding(*place, "", "", kind, message, hint)
