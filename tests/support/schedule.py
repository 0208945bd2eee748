"""How tests are spread over the workers of pytest-xdist: a file stays on one worker, long files start first.

A file's own stack is started once that way. Files that use the same stack are one unit, where starting it again costs
more than what the other worker could do meanwhile.
"""

from __future__ import annotations

from typing import Any

import pytest

TOGETHER = {
    "attacked stack": (
        "tests/isolation/test_access.py",
        "tests/isolation/test_answers.py",
        "tests/isolation/test_bad_http.py",
        "tests/isolation/test_fuzzed.py",
        "tests/isolation/test_hung_servers.py",
        "tests/isolation/test_large_requests.py",
        "tests/isolation/test_neighbours.py",
        "tests/isolation/test_requests_that_end_servers.py",
    ),
    "example stack": (
        "tests/docs/test_documented_commands.py",
        "tests/docs/test_client_page.py",
        "tests/docs/test_console_page.py",
        "tests/docs/test_envoy_page.py",
        "tests/docs/test_facts_page.py",
        "tests/docs/test_grpc_page.py",
        "tests/docs/test_control_plane_page.py",
        "tests/docs/test_push_section.py",
        "tests/docs/test_troubleshooting_page.py",
    ),
    "console stack": (
        "tests/console/test_pages.py",
        "tests/console/test_playground.py",
        "tests/console/test_rules_page.py",
        "tests/console/test_live.py",
    ),
    # The first synthesis of a process takes it and its Node.js 8 s of CPU time, each later one 1 s.
    "synthesized stacks": (
        "tests/infra/test_checks.py",
        "tests/infra/test_commands.py",
        "tests/infra/test_console_rights.py",
        "tests/infra/test_console_templates.py",
        "tests/infra/test_fleet_changes.py",
        "tests/infra/test_shards.py",
        "tests/infra/test_upgrades.py",
    ),
    "functions' Triton": (
        "tests/lambdas/test_edge_headers.py",
        "tests/lambdas/test_events.py",
        "tests/lambdas/test_snapshots.py",
        "tests/lambdas/test_traces.py",
    ),
    "gRPC stack": (
        "tests/rpc/test_client.py",
        "tests/rpc/test_stream.py",
        "tests/rpc/test_unary.py",
    ),
    "example models": (
        "tests/triton_models/test_facts_lookup.py",
        "tests/triton_models/test_isolation.py",
        "tests/triton_models/test_onnxruntime_backend.py",
        "tests/triton_models/test_purchase_propensity.py",
        "tests/triton_models/test_title_history.py",
        "tests/triton_models/test_title_playlist.py",
        "tests/triton_models/test_title_ranking.py",
        "tests/triton_models/test_title_search.py",
    ),
}
"""Files that are one unit."""

LONG_FIRST: tuple[str, ...] = (
    "tests/cli/test_up.py",
    "tests/isolation/",
    "tests/assets/test_compiling.py",
    "tests/infra/test_upgrades.py",
    "tests/docs/test_control_plane_page.py",
    "tests/console/test_pages.py",
    "tests/e2e/",
    "tests/cli/test_gateway_process.py",
    "tests/cli/test_publish.py",
    "tests/envoy/",
    "tests/chaos/",
    "tests/gpu_check/",
    "tests/triton_models/",
    "tests/rpc/test_unary.py",
    "tests/test_lint.py",
    "tests/assets/",
    "tests/infra/",
    "tests/web/test_generated_clients.py",
    "tests/cli/test_follow.py",
    "tests/docs/",
    "tests/cli/test_models_",
    "tests/triton/",
    "tests/aws/",
    "tests/lambdas/",
    "tests/control/",
    "tests/rules/",
    "tests/analysis/",
    "tests/console/",
    "tests/web/",
    "tests/gateway/",
    "tests/language/",
    "tests/placement/",
    "tests/faults/",
    "tests/fleet/",
    "tests/models/",
)
"""What starts first, by how its path begins; a worker that gets a long file last would keep all others waiting."""

_UNITS = {file: unit for unit, files in TOGETHER.items() for file in files}


def unit(nodeid: str) -> str:
    """What a test is sent to a worker with."""
    file = nodeid.partition("::")[0]
    return _UNITS.get(file, file)


def start(nodeid: str) -> tuple[int, str]:
    """Where a test comes in the order of starts; tests of a unit come together, in the order they were collected in."""
    name = unit(nodeid)
    files = TOGETHER.get(name, (nodeid,))
    ranks = (rank for rank, beginning in enumerate(LONG_FIRST) if any(file.startswith(beginning) for file in files))
    return next(ranks, len(LONG_FIRST)), name


def scheduler(config: pytest.Config, log: Any) -> Any:
    """The scheduler that pytest-xdist asks for."""
    from xdist.scheduler import LoadFileScheduling

    class ByUnit(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return ByUnit(config, log)
