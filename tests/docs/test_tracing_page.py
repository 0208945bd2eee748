"""The page about traces: its commands, Triton's arguments and the variables are those of the code. Its picture of a trace is compared
with a real one in tests/e2e/test_traces.py."""

from __future__ import annotations

import re

from tidegate.settings import Settings
from tidegate.tracing.environment import DEFAULT_ENDPOINT, MOST_WAITING, SAMPLERS, check_tracing, traces_endpoint
from tidegate.triton.server import trace_arguments

from tests.docs.blocks import ROOT, blocks

PAGE = "docs/tracing.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def test_the_arguments_are_those_that_the_local_stack_gives_its_servers() -> None:
    (shown,) = [each.text for each in blocks(PAGE) if each.text.startswith("--trace-config")]
    assert shown.splitlines() == trace_arguments(traces_endpoint({}))


def test_the_variables_of_each_command_are_accepted() -> None:
    lines = [line for each in blocks(PAGE) if each.language == "console" for line in each.text.splitlines()]
    starts = [line.removesuffix(" tidegate up") for line in lines if line.endswith("tidegate up")]
    assert len(starts) == 2
    for line in starts:
        variables = dict(each.split("=", 1) for each in line.split())
        assert Settings.from_environment(variables).tracing == "otlp"
        check_tracing(variables)


def test_the_defaults_and_the_samplers_are_those_of_the_code() -> None:
    assert f"`{DEFAULT_ENDPOINT}`" in TEXT
    assert f"({MOST_WAITING})" in TEXT
    assert set(re.findall(r"`((?:parentbased_)?(?:always_\w+|traceidratio))`", TEXT)) <= set(SAMPLERS)
