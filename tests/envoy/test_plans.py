"""What the rules can lead to, as Envoy needs to know it beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.envoy.plans import cluster_of, degraded_targets, http_plan, rpc_plan, shapes
from tidegate.errors import RulesError
from tidegate.language.directory import read_directory
from tidegate.language.retarget import Renames, retargeted
from tidegate.rules import Engine, compile_directory, load_bundle
from tritonclient.grpc import service_pb2

from .conftest import OPEN, RANKING, write_directory


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return load_bundle(compile_directory(write_directory(tmp_path, ranking=RANKING, open=OPEN)))


def test_there_is_a_cluster_for_each_order_of_shards(engine: Engine) -> None:
    assert {cluster_of(shape) for shape in shapes(engine)} == {"alpha+beta", "beta", "alpha+beta>beta", "beta>beta"}
    for objective in engine.objectives:
        for decision in engine.decisions(objective):
            assert (decision.shards, *(each.shards for each in decision.fallbacks)) in shapes(engine)


def test_what_is_appended_over_grpc_names_the_model(engine: Engine) -> None:
    decision = engine.decide("ranking", {"member_id": "1"})
    steps = (decision.target, *decision.fallbacks)
    assert (
        http_plan(steps, "/config")
        == "/v2/models/first/versions/1/config|first|1;/v2/models/second/versions/1/config|second|1"
    )
    sent = service_pb2.ModelInferRequest(model_name="ranking", id="7").SerializeToString()
    for step, target in zip(rpc_plan(steps, b"").split(";"), steps, strict=True):
        appended, model, version = step.split("|")
        message = service_pb2.ModelInferRequest.FromString(sent + bytes.fromhex(appended))
        assert (message.model_name, message.model_version, message.id) == (target.model, str(target.version), "7")
        assert (model, version) == (target.model, str(target.version))


def test_a_target_without_a_decision_is_one_of_the_rules(engine: Engine, tmp_path: Path) -> None:
    assert [(name, target.name) for name, target in degraded_targets(engine)] == [("open", "second/1")]
    # Its model is loaded, though no rule serves it.
    assert "second/1" in {target.name for target in engine.targets("open")}
    changed = retargeted(tmp_path, Renames({"second/1": "second/9"}))
    assert "degraded: second/9" in changed[tmp_path / "objectives" / "open.yaml"][1]


def test_an_unknown_target_is_an_error_with_its_place(tmp_path: Path) -> None:
    rules = write_directory(tmp_path, open=OPEN.replace("second/1", "secnd/1"))
    _, (finding,) = read_directory(rules)
    assert (finding.file, finding.line) == ("objectives/open.yaml", 2)
    assert finding.message == "unknown model 'secnd'"
    with pytest.raises(RulesError, match="did you mean 'second'"):
        compile_directory(rules)
