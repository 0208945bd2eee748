"""Values that each setting of a stage may have beside its default, made from the settings' own model."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra.settings import Settings

DOMAIN = {
    "name": "tidegate.example.com",
    "certificate_arn": "arn:aws:acm:eu-west-1:111122223333:certificate/1a2b",
}
JWT = {"kind": "jwt", "issuer": "https://issuer.example.com/", "audience": ["tidegate"]}

CLOUDFRONT = {
    "certificate_arn": "arn:aws:acm:us-east-1:111122223333:certificate/1a2b",
    "web_acl_arn": "arn:aws:wafv2:us-east-1:111122223333:global/webacl/tidegate/1a2b",
    "key_versions": ["0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"],
}

ENVOY = {
    "certificate_arn": "arn:aws:acm:eu-west-1:111122223333:certificate/1a2b",
    "jwks_uri": "https://issuer.example.com/keys",
}

WRITTEN: dict[tuple[str, ...], list[Any]] = {
    ("vpc_cidr",): ["10.43.0.0/16", "10.42.0.0/20"],
    ("log_retention_days",): [7, 365],
    ("metrics_namespace",): ["Tidegate/other"],
    ("authorizer",): [JWT, {**JWT, "scopes": ["infer"], "caller_claim": "azp"}],
    # Neither alone: see SECOND_DEPLOYMENTS of the test of upgrades.
    ("data_plane",): [],
    ("envoy",): [],
    ("domain",): [DOMAIN, {**DOMAIN, "name": "other.example.com"}],
    ("cloudfront",): [CLOUDFRONT],
    ("console",): [
        {"authorizer": {"kind": "iam"}},
        {"authorizer": {**JWT, "audience": ["operators"], "caller_claim": "email"}, "writes": True},
    ],
    ("sequence_key_version",): ["0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"],
    ("triton", "image_tag"): ["25.01-py3"],
    ("triton", "image_source"): ["registry.example.com/triton"],
    ("triton", "source_tag"): ["25.01-py3"],
    ("triton", "agent_tag"): ["2"],
    ("triton", "dcgm_exporter_tag"): ["4.2.0-4.1.0-ubuntu22.04"],
    ("images", "refused_severities"): [["CRITICAL", "HIGH"]],
    ("images", "accepted"): [{"CVE-2024-1234": "the image never opens such a file"}],
    ("images", "unscanned"): [{"triton": "its base image is of a kind that ECR does not know"}],
    ("triton", "default_instance_type"): ["g5.xlarge", "c7i.4xlarge"],
    # A server must still fit the instances of the shards.
    ("triton", "memory_reservation_mib"): [4096],
    ("triton", "gpus_per_replica"): [],
    ("triton", "instance_types"): [{"g9.xlarge": {"gpus": 1, "memory_gib": 16}}],
    ("triton", "root_volume_mibps"): [125, 750],
    ("ami", "gpu"): ["ami-0123456789abcdef0"],
    ("ami", "cpu"): ["ami-0123456789abcdef0"],
    ("alarms", "emails"): [["ops@example.com"]],
    ("prices",): [{"p5.48xlarge": 55.04}],
    ("variables",): [{"load_timeout_s": 100}, {"self_test_interval_s": 30}],
    ("tags",): [{"team": "serving"}],
}
"""Values of the settings whose type does not tell them."""


@functools.cache
def alternatives() -> dict[tuple[str, ...], list[Any]]:
    """Path of a setting -> values that are not its default."""
    return dict(_of(Settings, ()))


def _of(model: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        annotation = field.annotation
        if path in WRITTEN:
            yield path, WRITTEN[path]
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _of(annotation, path)
        else:
            default = field.get_default(call_default_factory=True)
            yield path, [each for each in _values(annotation, field) if each != default]


def _values(annotation: Any, field: FieldInfo) -> list[Any]:
    if annotation is bool:
        return [True, False]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    bounds = [*field.metadata, *_inner(annotation)]
    low = next((each.ge for each in bounds if hasattr(each, "ge")), None)
    high = next((each.le for each in bounds if hasattr(each, "le")), None)
    assert low is not None, f"write values of {field} into WRITTEN"
    return [low, min(high, low + 2)] if high is not None else [low]


def _inner(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [found for each in get_args(annotation) for found in _inner(each)]
    if get_origin(annotation) is not Annotated:
        return []
    _, *metadata = get_args(annotation)
    found: list[Any] = []
    for each in metadata:
        found += [each, *getattr(each, "metadata", ())]
    return found
