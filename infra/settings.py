"""The settings of the infrastructure: one typed model for every choice, read from `infra/settings/<stage>.yaml`.

A variable `TIDEGATE_INFRA_<NAME>` of the environment goes over the file; two underscores lead into a group, and the value
is read as YAML: `TIDEGATE_INFRA_ALARMS__P99_MS=250`, `TIDEGATE_INFRA_AUTHORIZER='{kind: iam}'`. An empty value means the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator
from tidegate.settings import PREFIX

from infra.setting_groups import (
    Alarms,
    Ami,
    Authorizer,
    CloudFront,
    Console,
    ControlFunctions,
    Domain,
    Envoy,
    Group,
    HttpFunction,
    IamAuthorizer,
    Images,
    InstanceType,
    ResolveFunction,
    Scaling,
    SecretVersion,
    Throttling,
    Triton,
)

MAX_ZONES = 3
"""The most availability zones of a stage; the network keeps addresses for all of them."""

VARIABLES: Mapping[str, str | int | float] = MappingProxyType({"load_timeout_s": 300, "server_start_timeout_s": 300})
"""Settings of the processes that differ in the cloud from their own defaults: models come from S3 and are large."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Marks a setting that cannot change after the first deployment, and why; `may_grow` allows larger values."""

    why: str
    may_grow: bool = False


GroupType = TypeVar("GroupType", bound=Group)


def _all_defaults(group: type[GroupType]) -> Callable[[], GroupType]:
    return lambda: group.model_validate({})


class Settings(Group):
    """All settings of one stage."""

    vpc_cidr: Annotated[StrictStr, Fixed("every address in the VPC would change")] = Field(
        "10.42.0.0/16", description="Address range of the VPC, /16 to /20."
    )
    availability_zones: Annotated[
        StrictInt,
        Field(ge=2, le=MAX_ZONES),
        Fixed("a zone's subnet cannot be deleted while servers and functions are in it", may_grow=True),
    ] = Field(2, description="Availability zones; each must offer the shards' instance types.")
    nat_gateways: Annotated[StrictInt, Field(ge=0, le=3)] = Field(
        0, description="NAT gateways for servers and functions that must reach the internet; 0: nothing can."
    )
    encryption: Annotated[
        Literal["customer_key", "service_managed"],
        Fixed(
            "what is stored stays encrypted with the key that it was written with, and the image repositories would be replaced"
        ),
    ] = Field(
        "customer_key",
        description="`customer_key`: one KMS key of the stage for everything stored; `service_managed`: each service's own.",
    )
    retain_data: StrictBool = Field(
        True, description="Keep bucket, tables, key, images and secret when the stacks are destroyed."
    )
    termination_protection: StrictBool = Field(False, description="Refuse to destroy the network and storage stacks.")
    log_retention_days: StrictInt = Field(
        30, description="How long logs are kept; a value that CloudWatch Logs supports."
    )
    access_log_retention_days: Annotated[StrictInt, Field(ge=1, le=3_650)] = Field(
        90, description="How long the access logs of bucket and balancers are kept."
    )
    old_version_days: Annotated[StrictInt, Field(ge=1, le=3_650)] = Field(
        90, description="How long replaced and deleted versions of objects are kept."
    )
    metrics_namespace: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._/#-]{1,255}$", examples=["Tidegate"])] = Field(
        "Tidegate",
        description="CloudWatch namespace; stages that share an account and region need different ones.",
    )
    architecture: Literal["arm64", "x86_64"] = Field("arm64", description="CPU of the functions, and of Envoy's tasks.")
    python_version: Literal["3.12", "3.13"] = Field(
        "3.13",
        description="Python of the functions. `make package` needs this version on the machine to compile their modules. Lambda's "
        "3.11 has a C library that is too old for NumPy's and gRPC's companions.",
    )
    entry_point: Literal["http_api", "function_url", "both"] = Field(
        "http_api",
        description="The entry point for requests: an API Gateway HTTP API, a Lambda Function URL with IAM, or both.",
    )
    authorizer: Authorizer = Field(IamAuthorizer(kind="iam"), description="Who may call the HTTP API.")
    domain: Domain | None = Field(None, description="A custom domain name for the HTTP API.")
    cloudfront: CloudFront | None = Field(
        None, description="CloudFront with AWS WAF in front of the HTTP API; needs `domain` and a JWT authorizer."
    )
    throttling: Throttling = Field(default_factory=_all_defaults(Throttling), description="Limits of the HTTP API.")
    data_plane: Literal["function", "envoy"] = Field(
        "function",
        description="What carries requests: the gateway's function alone, or Envoy besides, at an address in the VPC ([Envoy on "
        "AWS](envoy-on-aws.md)); after the first publish.",
    )
    envoy: Envoy | None = Field(None, description="Envoy's tasks; needed with `data_plane: envoy`.")
    gateway: HttpFunction = Field(default_factory=_all_defaults(HttpFunction), description="The gateway function.")
    resolve: ResolveFunction = Field(
        default_factory=_all_defaults(ResolveFunction), description="The resolve function."
    )
    control: ControlFunctions = Field(
        default_factory=_all_defaults(ControlFunctions),
        description="The functions that are not in the path of requests.",
    )
    console: Console | None = Field(
        None,
        description="The operators' console at an address of its own; unset: there is none, as it takes an authorizer that knows "
        "operators from callers.",
    )
    sequence_key_version: SecretVersion | None = Field(
        None,
        description="Version of the secret `SequenceKeyArn` that the gateway's function uses; unset: the current one.",
    )
    shadows: StrictBool = Field(
        True,
        description="Carry the `shadow` of rules out: a queue, the function `shadow`, and an interface endpoint of SQS. Without it the "
        "gateway's function makes no copies.",
    )
    pointer_cache: StrictBool = Field(
        False,
        description="Have the functions that decide poll the pointer to the live revision at the shard agents, which keep it for a second, "
        "and not in S3: for more than some 10,000 busy environments "
        "([what grows with the number of gateways](scale.md#what-grows-with-the-number-of-gateways)).",
    )
    triton: Triton = Field(default_factory=_all_defaults(Triton), description="The model servers.")
    ami: Ami = Field(default_factory=_all_defaults(Ami), description="The images of the shards' instances.")
    images: Images = Field(
        default_factory=_all_defaults(Images), description="Which findings of an image scan are accepted."
    )
    scaling: Scaling = Field(default_factory=_all_defaults(Scaling), description="How shards follow their load.")
    alarms: Alarms = Field(
        default_factory=_all_defaults(Alarms), description="When alarms notify people, and start the rollback."
    )
    prices: dict[InstanceType, Annotated[StrictFloat, Field(gt=0, lt=10_000)]] = Field(
        {},
        description="Dollars per hour of instance types, for `python -m infra costs`; these override its list prices.",
    )
    variables: dict[StrictStr, StrictStr | StrictInt | StrictFloat] = Field(
        dict(VARIABLES),
        description="Settings of every function and shard agent, by their names in [settings.md](settings.md); one of the "
        "default that is not named here keeps its value.",
    )
    tags: dict[
        Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.:/=+@-]{1,128}$")],
        Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9 _.:/=+@-]{0,256}$")],
    ] = Field({}, description="Tags of every resource, in addition to `tidegate:stage`.")

    @field_validator("variables")
    @classmethod
    def _over_the_defaults(cls, variables: dict[str, str | int | float]) -> dict[str, str | int | float]:
        return {**VARIABLES, **variables}


def process_variables(settings: Settings) -> dict[str, str]:
    """Return the setting `variables` as a process's environment."""
    return {PREFIX + name.upper(): str(value) for name, value in sorted(settings.variables.items())}
