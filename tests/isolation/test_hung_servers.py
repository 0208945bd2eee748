"""Servers that hang: callers are served by the others, and the server is replaced."""

from __future__ import annotations

import os
import signal

from tests.isolation.conftest import Bystander
from tests.isolation.place import SERVERS, Place
from tests.support.stack import eventually


def test_a_server_that_hangs_is_replaced_and_no_caller_waits_for_it(place: Place, bystander: Bystander) -> None:
    before = place.server_pids()
    hung = min(before)
    with bystander():
        os.kill(hung, signal.SIGSTOP)
        try:
            replaced = eventually(lambda: hung not in place.server_pids() and len(place.server_pids()) == SERVERS)
        finally:
            if hung in place.server_pids():
                os.kill(hung, signal.SIGCONT)
    assert replaced, "the server that hangs is still there"
    assert place.server_pids() > before - {hung}


def test_a_server_that_is_killed_is_replaced_and_no_caller_notices(place: Place, bystander: Bystander) -> None:
    before = place.server_pids()
    killed, gateway = max(before), place.gateway_pid
    with bystander():
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: len(place.server_pids() - {killed}) == SERVERS)
    assert place.server_pids() > before - {killed}
    assert place.gateway_pid == gateway
