"""Templates that many tests look at; each takes seconds to make, so they are made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from infra.assembly import Assembly
from infra.checks import Found, synthesize_and_check
from infra.function_assets import placeholder_assets
from infra.reading import read_settings, read_shards
from tests.docs.blocks import ROOT
from tests.infra.fleets import NO_VARIABLES, write_rules, write_stage
from tests.support.once import made_once
from tests.support.parts import need

SHARDS = {
    "alpha": {"replicas": 2},
    "Fast_pool.v2": {
        "replicas": 3,
        "instance_type": "g5.2xlarge",
        "min_replicas": 2,
        "max_replicas": 6,
        "spot_percent": 70,
    },
    "CPU_only": {"instance_type": "c7i.4xlarge"},
    "sleepy": {
        "scale_to_zero": True,
        "max_replicas": 3,
        "spot_percent": 100,
        "alternative_types": ["g6.xlarge", "g5.xlarge"],
    },
}

EVERY_CHOICE = {
    "entry_point": "both",
    "encryption": "service_managed",
    "authorizer": {
        "kind": "jwt",
        "issuer": "https://issuer.example.com/",
        "audience": ["tidegate"],
        "scopes": ["infer"],
    },
    "domain": {
        "name": "tidegate.example.com",
        "certificate_arn": "arn:aws:acm:eu-west-1:111122223333:certificate/1a2b",
    },
    "console": {
        "authorizer": {"kind": "jwt", "issuer": "https://issuer.example.com/", "audience": ["operators"]},
        "writes": True,
    },
    "pointer_cache": True,
    "sequence_key_version": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
    "nat_gateways": 1,
    "availability_zones": 3,
    "architecture": "x86_64",
    "data_plane": "envoy",
    "envoy": {
        "certificate_arn": "arn:aws:acm:eu-west-1:111122223333:certificate/3c4d",
        "jwks_uri": "https://issuer.example.com/keys",
        "caller_networks": ["10.0.0.0/8", "192.168.4.0/24"],
        "max_tasks": 20,
        "image_tag": "released-in-may",
    },
    "metrics_namespace": "Tidegate/test",
    "retain_data": False,
    "gateway": {"provisioned_concurrency": 2, "reserved_concurrency": 10},
    "triton": {
        "auto_complete_config": True,
        "image_tag": "25.01-py3",
        "remote_commands": True,
        "dcgm_exporter_tag": "4.2.0-4.1.0-ubuntu22.04",
    },
    "alarms": {"emails": ["ops@example.com"], "rollback": False},
    "ami": {"gpu": "ami-0123456789abcdef0", "cpu": "ami-0c0c0c0c0c0c0c0c0"},
    "tags": {"team": "serving"},
    "termination_protection": True,
}
"""The other one of every choice."""


@dataclass(frozen=True, slots=True)
class Made:
    """Templates, and what every check found in them."""

    assembly: Assembly
    found: list[Found]
    folder: Path


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The project's own fleet on its stage `prod`."""

    def make(folder: Path) -> list[Found]:
        settings = read_settings("prod", NO_VARIABLES)
        shards = read_shards(ROOT / "routing_rules", settings)
        return synthesize_and_check("prod", settings, shards, placeholder_assets(), folder / "out")

    return made(tmp_path_factory, "project", make)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every kind of shard on a stage that chooses everything that is no default."""

    def make(folder: Path) -> list[Found]:
        settings = read_settings("test", NO_VARIABLES, write_stage(folder / "settings", "test", EVERY_CHOICE))
        shards = read_shards(write_rules(folder / "rules", SHARDS), settings)
        return synthesize_and_check("test", settings, shards, placeholder_assets(), folder / "out")

    return made(tmp_path_factory, "other", make)


def made(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], list[Found]]) -> Made:
    """What the first worker makes and checks, for all of them."""
    need("checkov")

    def keep(folder: Path) -> None:
        found = make(folder)
        (folder / "found.json").write_text(json.dumps([asdict(each) for each in found]))

    folder = made_once(factory, name, keep)
    found = [Found(**each) for each in json.loads((folder / "found.json").read_text())]
    return Made(Assembly.read(folder / "out"), found, folder / "out")
