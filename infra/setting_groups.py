"""The groups of the infrastructure's settings, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

MAX_HTTP_API_TIMEOUT_S = 29
"""An HTTP API gives up after 30 s; a function that ends before can still say why."""

CertificateArn = Annotated[
    StrictStr,
    Field(
        pattern=r"^arn:[a-z0-9-]+:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$",
        examples=["arn:aws:acm:eu-west-1:111122223333:certificate/…"],
    ),
]
HttpsUrl = Annotated[StrictStr, Field(pattern=r"^https://[^\s/?#]+\S*$", examples=["https://issuer.example.com/"])]
ImageTag = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", examples=["24.10-py3"])]
InstanceType = Annotated[
    StrictStr, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$", max_length=32, examples=["g5.xlarge"])
]
AmiId = Annotated[StrictStr, Field(pattern=r"^ami-[0-9a-f]{8,17}$", examples=["ami-0123456789abcdef0"])]
SecretVersion = Annotated[
    StrictStr, Field(pattern=r"^[A-Za-z0-9-]{32,64}$", examples=["0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"])
]
Percentage = Annotated[StrictInt, Field(ge=1, le=100)]
Ratio = (
    Annotated[StrictInt, Field(ge=1, le=1_000)] | Annotated[StrictFloat, Field(ge=0.01, le=1_000, allow_inf_nan=False)]
)


class Group(BaseModel):
    """Base of every group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JwtAuthorizer(Group):
    """Callers send a JSON Web Token of an OpenID Connect issuer."""

    kind: Literal["jwt"] = Field(description="A JSON Web Token.")
    issuer: HttpsUrl = Field(
        description="The token's `iss`, whose `/.well-known/openid-configuration` API Gateway reads."
    )
    audience: Annotated[list[Annotated[StrictStr, Field(min_length=1)]], Field(min_length=1)] = Field(
        description="The accepted `aud` or `client_id`."
    )
    scopes: list[Annotated[StrictStr, Field(min_length=1)]] = Field(
        [], description="Scopes of which a token needs one."
    )
    caller_claim: Annotated[StrictStr, Field(pattern=r"^[!-~]{1,128}$", examples=["client_id"])] = Field(
        "client_id", description="The claim that names the caller; where a token lacks it, its `sub` does."
    )


class IamAuthorizer(Group):
    """Callers sign their requests (Signature Version 4) and hold the callers' managed policy."""

    kind: Literal["iam"] = Field(description="A signed request.")


Authorizer = Annotated[JwtAuthorizer | IamAuthorizer, Field(discriminator="kind")]


class Domain(Group):
    """A custom domain name for the HTTP API; the default address is then disabled, unless `default_address` is true."""

    name: Annotated[StrictStr, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", examples=["tidegate.example.com"])] = (
        Field(description="The domain name.")
    )
    certificate_arn: CertificateArn = Field(description="Its ACM certificate, in the stack's region.")
    default_address: StrictBool = Field(
        False, description="Keep the API's default address too, while callers move from one to the other."
    )


class CloudFront(Group):
    """Amazon CloudFront in front of the HTTP API, with a firewall; the API then takes requests from it alone."""

    certificate_arn: Annotated[
        StrictStr,
        Field(
            pattern=r"^arn:[a-z0-9-]+:acm:us-east-1:[0-9]{12}:certificate/.+$",
            examples=["arn:aws:acm:us-east-1:111122223333:certificate/…"],
        ),
    ] = Field(
        description="The ACM certificate of the setting `domain`'s name in us-east-1, where CloudFront looks for it."
    )
    web_acl_arn: Annotated[
        StrictStr,
        Field(
            pattern=r"^arn:[a-z0-9-]+:wafv2:us-east-1:[0-9]{12}:global/webacl/.+$",
            examples=["arn:aws:wafv2:us-east-1:111122223333:global/webacl/tidegate/…"],
        ),
    ] = Field(
        description="The AWS WAF web ACL that looks at every request; of the scope CLOUDFRONT, which is in us-east-1."
    )
    key_versions: Annotated[list[SecretVersion], Field(min_length=1, max_length=2)] = Field(
        description="Versions of the secret `EdgeKeyArn`: CloudFront sends the first one's value; the functions accept that, and "
        "while the key is rotated the second one's."
    )
    enforced: StrictBool = Field(
        True,
        description="Refuse requests that did not come through CloudFront; false while DNS moves to CloudFront or away from it.",
    )


class Console(Group):
    """The operators' console: a function with an HTTP API of its own, and metrics by rule for it."""

    authorizer: Authorizer = Field(
        description="Who are operators. The page in a browser needs `jwt`; with `iam`, requests are signed, and operators hold the "
        "operators' managed policy."
    )
    writes: StrictBool = Field(
        False,
        description="Let operators roll back in the console. Its function then has the rights of the function `rollback`, and the "
        "management secret; without, it reads, and reaches no server.",
    )


class Envoy(Group):
    """Envoy and its resolvers on Fargate, behind a load balancer of their own inside the VPC; see `data_plane`."""

    certificate_arn: CertificateArn = Field(
        description="The ACM certificate of the load balancer, in the stack's region, for the name that callers use."
    )
    jwks_uri: HttpsUrl = Field(
        description="Where the issuer of `authorizer` publishes its keys: `jwks_uri` of its `/.well-known/openid-configuration`."
    )
    caller_networks: Annotated[list[StrictStr], Field(min_length=1, max_length=20)] | None = Field(
        None, description="Private address ranges that callers connect from; unset: the VPC alone."
    )
    cpu_units: Literal[1_024, 2_048, 4_096] = Field(
        2_048, description="CPU of one task, 1024 for each core; each core has a resolver, and Envoy a thread."
    )
    memory_mib: Annotated[StrictInt, Field(ge=2_048, le=30_720, multiple_of=1_024)] = Field(
        4_096, description="Memory of one task; 2 to 8 times as many MiB as CPU units."
    )
    min_tasks: Annotated[StrictInt, Field(ge=2, le=1_000)] = Field(
        2, description="The fewest tasks; Fargate spreads them over the availability zones."
    )
    max_tasks: Annotated[StrictInt, Field(ge=2, le=1_000)] = Field(10, description="The most tasks.")
    cpu_target_percent: Percentage = Field(50, description="Target of the tasks' CPU use, by which they scale.")
    requests_per_s_target: Annotated[StrictInt, Field(ge=1, le=100_000)] = Field(
        500, description="Target of the requests over HTTP per second of one task, by which they scale too."
    )
    drain_s: Annotated[StrictInt, Field(ge=5, le=3_600)] = Field(
        60, description="How long a task that is replaced may finish its requests and streams."
    )
    image_tag: ImageTag | None = Field(
        None,
        description="Tag of the image in the stage's ECR repository, to stay with or go back to one; unset: that which `make images` "
        "makes of the sources.",
    )


class Throttling(Group):
    """Limits of the HTTP API, over all callers."""

    rate_per_s: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(1_000, description="Requests per second.")
    burst: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        2_000, description="Requests that may arrive at once, above the rate."
    )


class HttpFunction(Group):
    """A function in the path of requests."""

    memory_mib: Annotated[StrictInt, Field(ge=128, le=10_240)] = Field(
        1_769, description="Memory; 1769 MiB come with one whole CPU."
    )
    timeout_s: Annotated[StrictInt, Field(ge=1, le=MAX_HTTP_API_TIMEOUT_S)] = Field(
        MAX_HTTP_API_TIMEOUT_S, description="Time-out of one request; an HTTP API itself gives up after 30 s."
    )
    reserved_concurrency: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="The most concurrent requests, reserved in the account's pool; unset: what is free in the account.",
    )
    provisioned_concurrency: Annotated[StrictInt, Field(ge=0, le=100_000)] = Field(
        0, description="Environments that are kept initialised; 0: none."
    )

    snap_start: StrictBool = Field(
        False,
        description="Start new environments from a snapshot of an initialised one (SnapStart); needs Python 3.12 or later, and "
        "excludes `provisioned_concurrency`.",
    )


class ResolveFunction(HttpFunction):
    """The function that only decides, and waits for no server."""

    memory_mib: Annotated[StrictInt, Field(ge=128, le=10_240)] = Field(512, description="Memory.")


class ControlFunctions(Group):
    """The functions that are not in the path of requests."""

    memory_mib: Annotated[StrictInt, Field(ge=128, le=10_240)] = Field(1_024, description="Memory of each of them.")
    reconcile_timeout_s: Annotated[StrictInt, Field(ge=30, le=900)] = Field(
        600, description="Time-out of one reconciliation, loads included."
    )
    validate_timeout_s: Annotated[StrictInt, Field(ge=10, le=900)] = Field(
        120, description="Time-out of compiling and proving one set of rules."
    )
    rollback_timeout_s: Annotated[StrictInt, Field(ge=30, le=900)] = Field(
        300,
        description="Time-out of one rollback; where a server lacks a model of the revision that it goes back to, it loads it.",
    )
    shadow_timeout_s: Annotated[StrictInt, Field(ge=30, le=900)] = Field(
        120, description="Time-out of one batch of at most ten copies for shadows."
    )
    shadow_concurrency: Annotated[StrictInt, Field(ge=2, le=1_000)] = Field(
        10,
        description="The most batches of copies for shadows at a time; the others wait in the queue, for an hour at most.",
    )
    reconcile_every_min: Annotated[StrictInt, Field(ge=1, le=60)] = Field(
        1, description="Period of the schedule that compensates for lost events."
    )
    publish_timeout_min: Annotated[StrictInt, Field(ge=5, le=480)] = Field(
        60, description="Time-out of the job that publishes, loads included."
    )
    probe_every_min: Annotated[StrictInt, Field(ge=1, le=5)] = Field(
        1, description="Period of the probe, whose metric the shards scale on."
    )


class StatedType(Group):
    """An instance type that is newer than the known ones."""

    gpus: Annotated[StrictInt, Field(ge=0, le=64)] = Field(description="Its NVIDIA GPUs.")
    memory_gib: Annotated[StrictInt, Field(ge=1, le=100_000)] = Field(description="Its memory.")
    network_interfaces: Annotated[StrictInt, Field(ge=2, le=1_000)] | None = Field(
        None,
        description="Its network interfaces, of which each server needs one; unset: they do not bound how many servers fit.",
    )


class Ami(Group):
    """The images of the shards' instances; `make infra-amis` shows and updates them."""

    gpu: AmiId | None = Field(None, description="Of instances with GPUs; unset: `make infra` refuses to deploy such.")
    cpu: AmiId | None = Field(None, description="Of instances without; unset: `make infra` refuses to deploy such.")


class Triton(Group):
    """The model servers of every shard."""

    image_source: Annotated[StrictStr, Field(pattern=r"^[^\s:]+$")] = Field(
        "nvcr.io/nvidia/tritonserver", description="The image that ours is built on, without its tag."
    )
    source_tag: ImageTag = Field("24.10-py3", description="Tag of the image that ours is built on.")
    image_tag: ImageTag | None = Field(
        None,
        description="Tag of the Triton image in the stage's ECR repository, to stay with or go back to one; unset: that which "
        "`make images` makes of the sources.",
    )
    agent_tag: ImageTag | None = Field(
        None, description="The same of the shard agent's image, which the job that publishes runs too."
    )
    dcgm_exporter_tag: ImageTag | None = Field(
        None,
        description="Tag of NVIDIA's DCGM exporter in the stage's ECR repository, which runs beside each server with GPUs and "
        "reports broken ones; unset: there is none, and use and memory of GPUs are Triton's own figures.",
    )
    default_instance_type: InstanceType = Field(
        "g4dn.xlarge", description="Instance type of shards whose `instance_type` in fleet.yaml is unset."
    )
    gpus_per_replica: Annotated[StrictInt, Field(ge=1, le=16)] = Field(
        1, description="GPUs of one Triton server, where its instances have any."
    )
    memory_reservation_mib: Annotated[StrictInt, Field(ge=512, le=2_000_000)] = Field(
        8_192, description="Memory by which one Triton server is placed; it may use more if the instance has it."
    )
    shared_memory_mib: Annotated[StrictInt, Field(ge=64, le=1_000_000)] = Field(
        1_024, description="`/dev/shm` of one Triton server, through which its Python steps exchange tensors."
    )
    root_volume_gib: Annotated[StrictInt, Field(ge=50, le=16_000)] = Field(
        100, description="Disk of an instance: the image alone unpacks to more than 20 GiB, and models are kept on it."
    )
    root_volume_mibps: Annotated[StrictInt, Field(ge=125, le=2_000)] = Field(
        500, description="Throughput of that disk, MiB a second: it bounds how fast an image is unpacked."
    )
    root_volume_iops: Annotated[StrictInt, Field(ge=3_000, le=80_000)] = Field(
        3_000, description="Operations of that disk a second; at least four per MiB of throughput."
    )
    instance_types: dict[InstanceType, StatedType] = Field(
        {}, description="Instance types that are newer than the known ones, by name."
    )
    remote_commands: StrictBool = Field(
        False,
        description="Let people run commands in the servers' containers (ECS Exec); sessions are logged. "
        "It adds an interface endpoint.",
    )
    auto_complete_config: StrictBool = Field(
        False, description="Let Triton complete partial model configs, at the price of starting each Python step twice."
    )
    start_timeout_s: Annotated[StrictInt, Field(ge=60, le=7_200)] = Field(
        900, description="How long a new server may load its models before its failing health check replaces it."
    )
    drain_s: Annotated[StrictInt, Field(ge=5, le=110)] = Field(
        35, description="How long a stopping server may finish its requests; the longest request takes 29 s."
    )


class Images(Group):
    """Which findings of ECR's scan of a pushed image are accepted."""

    refused_severities: list[Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED"]] = Field(
        ["CRITICAL"], description="Severities of findings that prevent a deployment."
    )
    accepted: dict[
        Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9:.-]{2,127}$", examples=["CVE-2024-1234"])],
        Annotated[StrictStr, Field(min_length=20)],
    ] = Field({}, description="Findings that are accepted anyway, each with the reason.")
    unscanned: dict[
        Literal["triton", "agent", "envoy", "dcgm-exporter"], Annotated[StrictStr, Field(min_length=20)]
    ] = Field({}, description="Images that are deployed although ECR cannot scan them, each with the reason.")


class Scaling(Group):
    """Automatic scaling of shards."""

    queue_time_ratio_target: Ratio = Field(0.5, description="Target of the time in Triton's queue per time in compute.")
    scale_out_cooldown_s: Annotated[StrictInt, Field(ge=0, le=3_600)] = Field(
        120, description="Time between two steps up."
    )
    scale_in_cooldown_s: Annotated[StrictInt, Field(ge=0, le=3_600)] = Field(
        600, description="Time between two steps down."
    )
    idle_min: Annotated[StrictInt, Field(ge=5, le=60)] = Field(
        15, description="Minutes without a request after which a `scale_to_zero` shard has no server."
    )


class Alarms(Group):
    """Thresholds of the alarms."""

    emails: list[Annotated[StrictStr, Field(pattern=r"^[^\s@]+@[^\s@]+$", examples=["ops@example.com"])]] = Field(
        [], description="Addresses that alarms are sent to; each has to confirm once."
    )
    errors_5xx_percent: Percentage = Field(1, description="Answers with a 5xx status, of all answers in a minute.")
    p99_ms: Annotated[StrictInt, Field(ge=1, le=30_000)] = Field(500, description="99th percentile of the latency.")
    fallback_percent: Percentage = Field(
        5, description="Requests that a fallback answered, of all requests in a minute."
    )
    bundle_age_s: Annotated[StrictInt, Field(ge=30, le=86_400)] = Field(
        300, description="Time since a gateway last reached the bundle store."
    )
    queue_time_ratio: Ratio = Field(
        2.0, description="Time in a shard's queue per time in compute that scaling did not bring down."
    )
    unhealthy_min: Annotated[StrictInt, Field(ge=1, le=60)] = Field(
        3, description="Minutes that a shard may be without a healthy server."
    )
    cold_start_min: Annotated[StrictInt, Field(ge=5, le=120)] = Field(
        20, description="A `scale_to_zero` shard alarms when it turned requests away in two such spans on end."
    )
    min_requests: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        20, description="Requests in a minute below which no rate of errors or fallbacks is judged."
    )
    rollback: StrictBool = Field(
        True,
        description="Move the pointer to the last revision that is not marked bad when the rate of 5xx or fallbacks alarms.",
    )
