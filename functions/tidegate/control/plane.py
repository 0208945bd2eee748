"""The control plane of one process: what every function of this package works with."""

from __future__ import annotations

from typing import NamedTuple

from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import StateReader
from tidegate.control.failures import Failures
from tidegate.control.inspection import Inspector
from tidegate.ports import Unit


class FailedTry(NamedTuple):
    """When models failed a try, in Unix seconds, and why."""

    at: float
    reason: str


class ControlPlane:
    """The dependencies and caches with which a process changes the fleet. Any number of processes may have one.

    Attributes:
        reader: reads what the fleet must hold, and caches what never changes.
        failures: the loads that failed, shared with the servers that this process supervises.
        failed_tries: the models that failed a try, by the revision and the drafts that it needs.
        inspector: looks whether what is live is stored whole and answers.
    """

    def __init__(self, ports: ControlPorts, config: ControlConfig | None = None) -> None:
        self.ports = ports
        self.config = ControlConfig() if config is None else config
        self.reader = StateReader(ports, self.config)
        self.failures = Failures(ports.clock)
        self.failed_tries: dict[tuple[str, frozenset[tuple[Unit, str]]], FailedTry] = {}
        self.inspector = Inspector(ports)
