"""Whether rules that run one experiment run the same one: else its results by cell would mix what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Run:
    """An experiment as one rule runs it. `place` is where, in words; `shared` whether its author says that others differ."""

    place: str
    shared: bool
    arms: Mapping[str, Any]


class ExperimentRuns:
    """The experiments that the rules of all objectives run, by id."""

    def __init__(self) -> None:
        self._runs: dict[str, list[_Run]] = {}

    def add(self, rule: Mapping[str, Any], *, shared: bool, place: str, report: Callable[[str, str], None]) -> None:
        """Take an experiment as a rule runs it, and report where another rule's run of it has other arms.

        Args:
            rule: the rule in normal form.
            shared: whether the rule says that others run the experiment with arms of their own.
            place: the rule's id, file and line, in words.
            report: takes what is wrong and what would be right.
        """
        run = _Run(place, shared, _arms(rule))
        name = rule["experiment"]["id"]
        for other in self._runs.get(name, ()):
            differing = ", ".join(key for key, value in run.arms.items() if value != other.arms[key])
            if differing and not (shared and other.shared):
                report(
                    f"experiment {name!r} is also run by {other.place}, with other {differing}: "
                    "results by cell would mix them",
                    "make them alike, give one another id, or write `shared: true` in both experiments",
                )
                break
        self._runs.setdefault(name, []).append(run)

    def is_run_once(self, experiment: str) -> bool:
        """Whether one rule alone runs an experiment."""
        return len(self._runs.get(experiment, ())) == 1


def _arms(rule: Mapping[str, Any]) -> dict[str, Any]:
    """What one member of a cell gets, and how cells are allotted, by the words for it."""
    experiment = rule["experiment"]
    cells = experiment["cells"]
    common = rule.get("parameters", {})
    by_caller = experiment["allocate"] == "caller"
    return {
        "allocation": (experiment["allocate"], experiment.get("layer")),
        "cells": [str(cell["cell"]) for cell in cells],
        "weights": None if by_caller else {str(cell["cell"]): cell["weight"] for cell in cells},
        "targets": {str(cell["cell"]): cell["serve"] for cell in cells},
        "parameters": {str(cell["cell"]): common | cell.get("parameters", {}) for cell in cells},
    }
