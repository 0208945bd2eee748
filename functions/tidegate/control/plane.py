"""The control plane of one process: its parts, wired."""

from __future__ import annotations

from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import StateReader
from tidegate.control.failures import Failures
from tidegate.control.publish import Publisher
from tidegate.control.reconcile import Reconciler
from tidegate.control.recover import Recoverer
from tidegate.control.rollback import Rollbacker
from tidegate.control.status import StatusReader


class ControlPlane:
    """What a process needs to change the fleet. Any number of processes may have one.

    Attributes:
        reader: reads what the fleet must hold.
        failures: what failed to load, shared with the servers that this process supervises.
        reconciler: makes the fleet hold it.
        publisher: makes rules live.
        rollbacker: makes earlier rules live again.
        recoverer: makes a lost pointer again.
        status: tells how the fleet is.
    """

    def __init__(self, ports: ControlPorts, config: ControlConfig | None = None) -> None:
        self.ports = ports
        self.config = ControlConfig() if config is None else config
        self.reader = StateReader(ports, self.config)
        self.failures = Failures(ports.clock)
        self.reconciler = Reconciler(ports, self.config, self.reader, self.failures)
        self.publisher = Publisher(ports, self.config, self.reader, self.reconciler)
        self.status = StatusReader(ports, self.reader, self.reconciler, self.failures)
        self.recoverer = Recoverer(ports, self.reader)
        self.rollbacker = Rollbacker(ports, self.config, self.reader, self.reconciler)
