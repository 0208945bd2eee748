"""The step that looks histories up, on the real Triton: from the table, and without it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.aws import LocalAws, closed_port, silent_server
from tests.support.stack import eventually

from .conftest import Server
from .test_title_ranking import UNKNOWN, members

Variant = Callable[..., str]
_numbers = itertools.count(1)
"""Triton goes on counting where a model of the same name left off, so each copy has a name of its own."""


@pytest.fixture
def variant(server: Server, artefacts: Path, extra_models: Path) -> Iterator[Variant]:
    """Makes copies of the step with other parameters; they are gone after the test."""
    made: list[str] = []

    def make(**parameters: object) -> str:
        name = f"title_history_{next(_numbers)}"
        folder = extra_models / name
        shutil.copytree(artefacts / "title_history", folder, ignore=shutil.ignore_patterns("facts", "__pycache__"))
        config = (folder / "config.pbtxt").read_text().replace('"title_history"', f'"{name}"')
        for key, value in parameters.items():
            config = re.sub(rf'parameters {{\s+key: "{key}"[^}}]+}}\s+}}', "", config)
            config += f'\nparameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'
        (folder / "config.pbtxt").write_text(config)
        made.append(name)
        server.load(name)
        return name

    yield make
    for name in made:
        server.client.unload_model(name)
        shutil.rmtree(extra_models / name)


def lookups(server: Server, model: str) -> dict[str, float]:
    """The counters of a model, by outcome."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    found = re.findall(r"^tidegate_facts_lookups{(.*)} (\S+)$", text, re.MULTILINE)
    counters = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in found]
    return {labels["outcome"]: value for labels, value in counters if labels["model"] == model and value}


def put(facts: LocalAws, table: str, member: str, text: str) -> None:
    item = {"pk": {"S": member}, "sk": {"S": "member_history"}, "value": {"S": text}}
    facts.clients().client("dynamodb").put_item(TableName=table, Item=item)


def test_histories_come_from_the_table_and_then_from_the_cache(
    server: Server, facts: LocalAws, artefacts: Path, variant: Variant
) -> None:
    model = variant()
    for _ in range(2):
        answer = server.infer(model, members("42", UNKNOWN, "42", ""))
        lines = (artefacts / "title_history/facts/member_history.jsonl").read_text().splitlines()
        (history,) = (row["value"] for row in map(json.loads, lines) if row["key"] == "42")
        assert answer["HISTORY"].shape == answer["SEEN"].shape == (4, 1682)
        assert answer["HISTORY"].sum(axis=1).tolist() == [len(history["liked"]), 0, len(history["liked"]), 0]
        assert answer["SEEN"].sum(axis=1).tolist() == [len(history["rated"]), 0, len(history["rated"]), 0]
    assert lookups(server, model) == {"read": 1, "absent": 3, "cached": 2}


def test_a_fact_that_changes_is_seen_when_the_cache_lets_go(server: Server, facts: LocalAws, variant: Variant) -> None:
    model = variant(facts_cache_ttl_s=0)
    for liked in ([1], [1, 2, 3], [999_999]):
        put(facts, facts.table, "someone new", json.dumps({"liked": liked, "rated": liked}))
        seen = server.infer(model, members("someone new"))["SEEN"][0]
        assert seen.sum() == len([title for title in liked if title <= 1682])


@pytest.mark.parametrize(
    "text", ["[]", '{"liked": [1]}', '{"liked": [1.5], "rated": []}', '{"liked": "1", "rated": "1"}']
)
def test_a_malformed_history_is_none_and_counted(server: Server, facts: LocalAws, variant: Variant, text: str) -> None:
    model = variant()
    put(facts, facts.table, "damaged", text)
    answer = server.infer(model, members("damaged", "42"))
    assert (answer["SEEN"][0].any(), answer["SEEN"][1].any()) == (False, True)
    assert lookups(server, model) == {"read": 1, "degraded": 1}


def logged(server: Server, words: str) -> list[str]:
    """The lines of the log that hold these words. A model's process hands them to the server beside its answers."""
    lines: list[str] = eventually(lambda: [each for each in server.log_path.read_text().splitlines() if words in each])
    return lines


@pytest.mark.parametrize("outage", [closed_port, silent_server])
def test_without_its_table_the_step_answers_as_for_members_without_a_history(
    server: Server, variant: Variant, outage: Callable[[], Any]
) -> None:
    with outage() as url:
        model = variant(facts_endpoint_url=url, facts_timeout_ms=100)
        for _ in range(5):
            answer = server.infer(model, members("42", "943"))
            assert not answer["HISTORY"].any() and not answer["SEEN"].any()
    assert lookups(server, model) == {"degraded": 10}
    assert logged(server, f"{model}: table facts cannot be read yet")
    told = logged(server, f"{model}: 2 members answered without a read of their history")
    assert len(told) == 1, "the rest is held back for a while"
    assert "943" not in told[0].partition(model)[2]


def test_an_unknown_table_does_not_fail_the_load(server: Server, variant: Variant) -> None:
    model = variant(facts_table="nowhere")
    assert not server.infer(model, members("42"))["SEEN"].any()
    assert logged(server, f"{model}: table nowhere cannot be read yet (ResourceNotFoundException)")


def test_a_malformed_parameter_is_told_and_costs_the_histories_alone(server: Server, variant: Variant) -> None:
    model = variant(facts_timeout_ms="soon")
    np.testing.assert_array_equal(server.infer(model, members("42"))["HISTORY"], 0)
    told = (
        f"{model}: every member is answered as one without a history: facts_timeout_ms must be a number from 1 to 60000"
    )
    assert logged(server, told)
