"""Checks that all rules with one experiment run the same one: otherwise its results by cell would mix different things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.rules.bundle import encode
from tidegate.rules.bundle.rule import Experiment, Rule


@dataclass(frozen=True, slots=True)
class _Run:
    """An experiment as one rule runs it. `place` is where, in words; `arms` are encoded, since `true` is not 1."""

    place: str
    arms: Mapping[str, bytes]


@dataclass(slots=True)
class _Runs:
    """The runs of one experiment: how many, and of all and of those that are not `shared` the first two whose arms differ.
    Whatever arms a further run has, one of these two differs from it, if any does."""

    count: int = 0
    first: list[_Run] = field(default_factory=list)
    first_unshared: list[_Run] = field(default_factory=list)


class ExperimentRuns:
    """The experiments that the rules of all objectives run, by id."""

    def __init__(self) -> None:
        self._runs: dict[str, _Runs] = {}

    def add(
        self, rule: Rule, experiment: Experiment, *, shared: bool, place: str, report: Callable[[str, str], None]
    ) -> None:
        """Take an experiment as a rule runs it, and report where another rule's run of it has other arms.

        `shared`: the rule says that others run the experiment with arms of their own. `place` is its id, file and line, in
        words.
        """
        run = _Run(place, {key: encode(value) for key, value in _arms(rule, experiment).items()})
        name = experiment.id
        runs = self._runs.setdefault(name, _Runs())
        others = runs.first_unshared if shared else runs.first
        other = next((each for each in others if each.arms != run.arms), None)
        if other is not None:
            differing = ", ".join(key for key, value in run.arms.items() if value != other.arms[key])
            report(
                f"experiment {name!r} is also run by {other.place}, with other {differing}: "
                "results by cell would mix them",
                "make them alike, give one another id, or write `shared: true` in both experiments",
            )
        runs.count += 1
        for kept in (runs.first,) if shared else (runs.first, runs.first_unshared):
            if len(kept) < 2 and all(each.arms != run.arms for each in kept):
                kept.append(run)

    def is_run_once(self, experiment: str) -> bool:
        """Return whether one rule alone runs an experiment."""
        return experiment in self._runs and self._runs[experiment].count == 1


def _arms(rule: Rule, experiment: Experiment) -> dict[str, Any]:
    """Return the target of each cell, and the allocation of the cells, by their names in messages."""
    cells = {str(each.cell): each for each in experiment.cells}
    by_caller = experiment.allocate == "caller"
    return {
        "allocation": (experiment.allocate, experiment.layer),
        "cells": list(cells),
        "weights": None if by_caller else {name: each.weight for name, each in cells.items()},
        "targets": {name: each.serve for name, each in cells.items()},
        "parameters": {name: {**rule.parameters, **each.parameters} for name, each in cells.items()},
    }
