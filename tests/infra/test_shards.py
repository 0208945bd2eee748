"""The shards of fleet.yaml: names of any kind, sizes, and mistakes that are told with their line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tidegate.aws.shard_names import MAX_LABEL, label_of
from tidegate.bootstrap.functions import shard_directory
from tidegate.errors import RulesError

from infra.reading import read_settings, read_shards
from infra.settings import Settings
from infra.shards import Shard
from tests.infra.fleets import NO_VARIABLES, write_rules, write_stage
from tests.support.findings import without_columns

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True)


def shards_of(folder: Path, shards: dict[str, Any], **settings: Any) -> tuple[Shard, ...]:
    folder.mkdir(exist_ok=True)
    read = read_settings("test", NO_VARIABLES, write_stage(folder / "settings", "test", settings))
    return read_shards(write_rules(folder / "rules", shards), read)


@given(NAMES)
def test_a_label_can_stand_in_dns_and_is_short(name: str) -> None:
    label = label_of(name)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", label)
    assert len(label) <= MAX_LABEL


@given(NAMES, NAMES)
def test_different_names_have_different_labels(one: str, two: str) -> None:
    assert (label_of(one) == label_of(two)) == (one == two)


@given(NAMES, st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True))
def test_a_balancers_name_is_one(name: str, stage: str) -> None:
    # It starts Node.js, in each worker that collects this.
    from infra.stacks.parts import Stage
    from infra.stacks.shard.balancer import balancer_name

    made = balancer_name(Stage(stage, Settings.model_validate({})), label_of(name))
    assert re.fullmatch(r"tidegate-[a-z0-9-]*[a-z0-9]", made)
    assert len(made) <= 32


def test_a_plain_name_is_its_own_label() -> None:
    assert label_of("alpha") == "alpha"
    assert label_of("eu-west-2a") == "eu-west-2a"
    assert label_of("a_b") != label_of("a.b")
    assert label_of("a_b").startswith("a-b-")


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    shards = {
        "a": {"replicas": 2},
        "b": {"scale_to_zero": True},
        "c": {"min_replicas": 2, "max_replicas": 9, "replicas": 4, "instance_type": "g5.12xlarge", "spot_percent": 30},
        "d": {},
    }
    found = {shard.name: shard for shard in shards_of(tmp_path, shards)}
    sizes = {name: (shard.min_replicas, shard.max_replicas) for name, shard in found.items()}
    assert sizes == {"a": (2, 2), "b": (0, 1), "c": (2, 9), "d": (1, 1)}
    assert found["a"].instance_type == "g4dn.xlarge"
    assert (found["c"].min_instances, found["c"].max_instances) == (1, 3), "four GPUs on each instance"
    assert found["c"].spot_percent == 30


@pytest.mark.parametrize(
    ("shard", "told"),
    [
        ({"min_replicas": 0}, "fleet.yaml:3: min_replicas is 0 without scale_to_zero (write scale_to_zero: true"),
        ({"min_replicas": 1, "scale_to_zero": True}, "fleet.yaml:3: min_replicas is 1 and scale_to_zero is true"),
        ({"replicas": 4, "max_replicas": 2}, "max_replicas 2 is below replicas 4"),
        (
            {"instance_type": "m5.large"},
            "fleet.yaml:3: 'm5.large' has 8 GiB of memory, and a server is placed by 8448 MiB",
        ),
        ({"instance_type": "c7i.xlarge"}, "write a larger type, or lower the setting triton.memory_reservation_mib"),
        ({"instance_type": "g4ad.xlarge"}, "its GPUs are AMD's"),
        ({"instance_type": "g5g.xlarge"}, "the images are for x86-64"),
        ({"instance_type": "m7g.4xlarge"}, "'m7g.4xlarge' cannot run Triton: its CPUs are Arm"),
        ({"instance_type": "inf2.xlarge"}, "it has neither NVIDIA GPUs nor"),
        ({"instance_type": "f2.6xlarge"}, "it has neither NVIDIA GPUs nor"),
        ({"instance_type": "p2.xlarge"}, "its GPUs are older than the Triton image supports"),
        ({"instance_type": "g5.huge"}, "it is not a known instance type"),
        ({"instance_type": "g5.12xlarg"}, "it is not a known instance type (did you mean 'g5.12xlarge'?)"),
        ({"instance_type": "big"}, "'big' cannot run Triton: it is not a known instance type"),
        ({"instance_type": "p6e-gb200.36xlarge"}, "state GPUs and memory in the setting triton.instance_types"),
        ({"alternative_types": ["g5.12xlarge"]}, "'g5.12xlarge' has 4 GPUs and 'g4dn.xlarge' has 1"),
        ({"alternative_types": ["c7i.4xlarge"]}, "'c7i.4xlarge' has 0 GPUs and 'g4dn.xlarge' has 1"),
        ({"alternative_types": ["g5.xlarge", "g4dn.xlarge"]}, "fleet.yaml:3: 'g4dn.xlarge' is named twice"),
        ({"alternative_types": ["g5g.xlarge"]}, "fleet.yaml:3: 'g5g.xlarge' cannot run Triton: its CPUs are Arm"),
        ({"instance_type": "g5.xlarge; rm"}, "it is not a known instance type"),
        ({"spot_percent": 33.5}, "spot_percent 33.5 is not a whole number"),
        ({"replica": 3}, "fleet.yaml:3: unknown key 'replica' (did you mean 'replicas'?)"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas is above max_replicas"),
    ],
)
def test_what_cannot_be_built_is_told_with_its_line(tmp_path: Path, shard: dict[str, Any], told: str) -> None:
    with pytest.raises(RulesError) as raised:
        shards_of(tmp_path, {"a": shard})
    assert told in without_columns(str(raised.value))


def test_a_default_that_does_not_fit_is_told_at_the_shard(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"fleet.yaml:2:.* 'm7g.xlarge' cannot run Triton"):
        shards_of(tmp_path, {"a": {}}, triton={"default_instance_type": "m7g.xlarge"})


@pytest.mark.parametrize("instance_type", ["c7i.4xlarge", "m6a.xlarge", "r5.large", "t3.2xlarge", "z1d.xlarge"])
def test_a_shard_may_do_without_gpus(tmp_path: Path, instance_type: str) -> None:
    (shard,) = shards_of(tmp_path, {"a": {"instance_type": instance_type, "replicas": 3}})
    assert shard.gpus == 0
    assert (shard.min_instances, shard.max_instances) == (3, 3), "each server has an instance to itself"


@pytest.mark.parametrize(
    ("instance_type", "servers_per_instance"),
    [("p6-b200.48xlarge", 8), ("g7e.12xlarge", 2), ("g6f.xlarge", 1), ("gr6.4xlarge", 1), ("g4dn.metal", 8)],
)
def test_a_new_type_has_the_gpus_that_aws_says(tmp_path: Path, instance_type: str, servers_per_instance: int) -> None:
    (shard,) = shards_of(tmp_path, {"a": {"instance_type": instance_type, "replicas": 16}})
    assert shard.max_instances == 16 // servers_per_instance
    assert shard.gpus == 1


@pytest.mark.parametrize("instance_type", ["c7i.metal-24xl", "m7i-flex.4xlarge", "x2iedn.xlarge"])
def test_a_type_without_gpus_may_have_any_name(tmp_path: Path, instance_type: str) -> None:
    assert shards_of(tmp_path, {"a": {"instance_type": instance_type}})[0].gpus == 0


def test_a_type_that_is_not_known_yet_can_be_stated(tmp_path: Path) -> None:
    stated = {"instance_types": {"g9.48xlarge": {"gpus": 16, "memory_gib": 768}}}
    (shard,) = shards_of(tmp_path, {"a": {"instance_type": "g9.48xlarge", "replicas": 32}}, triton=stated)
    assert (shard.gpus, shard.max_instances) == (1, 2)


@pytest.mark.parametrize(("gpus", "instances"), [(1, 1), (2, 2), (4, 4)])
def test_instances_are_counted_by_their_gpus(tmp_path: Path, gpus: int, instances: int) -> None:
    shards = {"a": {"instance_type": "g5.12xlarge", "replicas": 4}}
    (shard,) = shards_of(tmp_path, shards, triton={"gpus_per_replica": gpus})
    assert (shard.gpus, shard.max_instances) == (gpus, instances)


@pytest.mark.parametrize(
    ("shard", "triton", "instances"),
    [
        ({"instance_type": "g5.12xlarge"}, {}, 2),
        ({"instance_type": "g5.12xlarge"}, {"memory_reservation_mib": 50_000}, 3),
        ({"instance_type": "g5.12xlarge"}, {"memory_reservation_mib": 100_000}, 8),
        ({"instance_type": "g5.48xlarge"}, {}, 2),
        ({"instance_type": "g6.12xlarge", "alternative_types": ["g4dn.12xlarge"]}, {}, 2),
        (
            {"instance_type": "g6e.12xlarge", "alternative_types": ["g5.12xlarge"]},
            {"memory_reservation_mib": 60_000},
            3,
        ),
        (
            {"instance_type": "g9.48xlarge"},
            {"instance_types": {"g9.48xlarge": {"gpus": 8, "memory_gib": 768, "network_interfaces": 3}}},
            4,
        ),
    ],
    ids=str,
)
def test_instances_are_counted_by_what_fits_on_them(
    tmp_path: Path, shard: dict[str, Any], triton: dict[str, Any], instances: int
) -> None:
    (found,) = shards_of(tmp_path, {"a": {**shard, "replicas": 8}}, triton=triton)
    assert (found.min_instances, found.max_instances) == (instances, instances)


def test_more_gpus_than_an_instance_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"'g5.xlarge' has 1 GPU, and a server has 4 "):
        shards_of(tmp_path, {"a": {"instance_type": "g5.xlarge"}}, triton={"gpus_per_replica": 4})


@given(NAMES)
def test_the_gateway_finds_a_shard_by_its_name_alone(name: str) -> None:
    from infra.stacks.functions import endpoints_variable

    (endpoint,) = shard_directory(endpoints_variable()).endpoints(name)
    assert (endpoint.host, endpoint.port) == (f"{label_of(name)}.tidegate.internal", 80)


def test_models_that_the_planner_places_change_nothing_of_the_shards(tmp_path: Path) -> None:
    shards = {
        "EU_west.1": {"replicas": 2, "memory_mb": 4000},
        "cpu": {"instance_type": "c7i.4xlarge", "memory_mb": 2000},
        "x" * 128: {"scale_to_zero": True, "memory_mb": 100},
    }
    pinned = shards_of(tmp_path / "pinned", shards)
    rules = write_rules(tmp_path / "auto", shards)
    fleet = yaml.safe_load((rules / "fleet.yaml").read_text())
    fleet |= {"tenants": {"ads": {}}, "models": {"m": {"shards": "auto", "memory_mb": 100, "tenant": "ads"}}}
    (rules / "fleet.yaml").write_text(yaml.safe_dump(fleet, sort_keys=False))
    assert read_shards(rules, Settings.model_validate({})) == pinned
