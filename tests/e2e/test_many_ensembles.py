"""Many ensembles that share steps, on two real servers: each is routed to, and a change of the rules is quick."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.publishing import TIMES, published, write_ensemble
from tests.support.effort import is_full
from tests.support.stack import RunningStack, eventually, make_repository, started_stack, write_rules

ENSEMBLES, STEPS = 300 if is_full() else 40, 3
FIRST_START_S = 400
"""Every version that is pushed, and every load, is some twenty requests of the one process that is S3 here."""

SHARDS = {"a": 1, "b": 1}
NAMES = [f"ensemble_{number:03}" for number in range(ENSEMBLES)]
PLACEMENT = {"versioned": ["a", "b"]} | {name: ["ab"[number % 2]] for number, name in enumerate(NAMES)}


def version_of(number: int) -> int:
    """The version of the shared model that an ensemble calls."""
    return number % STEPS + 1


def rules_of(folder: Path, **changed: str) -> Path:
    """Each ensemble serves one country, `changed` ones another's."""
    rules = [{"id": name, "when": {"country": name}, "serve": changed.get(name, name)} for name in NAMES] + [
        {"id": "rest", "serve": NAMES[0]}
    ]
    return write_rules(folder, SHARDS, PLACEMENT, main=json.dumps(rules), spare=spare())


def spare() -> str:
    """Keeps every ensemble in use, whatever the rules of `main` serve."""
    return json.dumps([{"id": "rest", "split": dict.fromkeys(NAMES, 1)}])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("models"), "versioned")
    with (folder / "versioned" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    for number, name in enumerate(NAMES):
        write_ensemble(folder, name, version_of(number))
    return folder


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    began = time.monotonic()
    log = tmp_path_factory.mktemp("log") / "errors"
    with started_stack(rules_of(tmp_path_factory.mktemp("rules")), models, log, variables=TIMES) as running:
        running.wait_ready(FIRST_START_S)
        print(f"{ENSEMBLES} ensembles were pushed and served on two servers after {time.monotonic() - began:.0f} s")
        yield running


def test_many_ensembles_are_each_routed_to_and_a_change_of_the_rules_is_quick(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(NAMES):
        assert served(stack, name) == (name, version_of(number))
    for shard in SHARDS:
        # A server that is too busy to answer for its health is left out for a moment.
        (held,) = eventually(lambda shard=shard: stack.models(shard))
        assert len(held) == ENSEMBLES / len(SHARDS) + STEPS
    began = time.monotonic()
    result = published(stack, rules_of(tmp_path, ensemble_001="ensemble_002"), models)
    assert result["status"] == "published"
    assert result["pushed"] == []
    assert result["activated"]["loaded"] == {}
    assert eventually(lambda: served(stack, "ensemble_001") == ("ensemble_002", version_of(2)))
    print(f"a change of the rules was live {time.monotonic() - began:.1f} s after its command")
    assert served(stack, "ensemble_003") == ("ensemble_003", version_of(3))


def served(stack: RunningStack, country: str) -> tuple[str, int]:
    """Which ensemble answers for a country, and with which version of its step."""
    tensor = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [0]}
    headers = {"Tidegate-Context": json.dumps({"country": country})}
    status, answer = stack.post("/v2/models/main/infer", {"inputs": [tensor]}, headers)
    assert status == 200, answer
    return answer["model_name"], answer["outputs"][0]["data"][0]
