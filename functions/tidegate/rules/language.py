"""The rule language as pydantic models: the shape of every file of a rules directory.

Unknown keys are forbidden everywhere. What needs knowledge of other files or of an attribute's type is checked by
`semantics.py`, after the shape.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, Tag

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
TARGET = r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[1-9][0-9]{0,17}|@[A-Za-z0-9][A-Za-z0-9_.-]*)?$"
ALIAS = r"^[A-Za-z0-9][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9_.-]*$"
PARAMETER = r"^[A-Za-z][A-Za-z0-9_-]*$"
ATTRIBUTE = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
HEADER = r"^header:[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
PRINTABLE = r"^([!-~]([ -~]*[!-~])?)?$"

EVERYTHING = "*"
OBJECTIVE_GRANT = r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]*)$"
OVERRIDE_GRANT = r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]*(/[1-9][0-9]{0,17}|@[A-Za-z0-9][A-Za-z0-9_.-]*)?)$"

MAX_TIMEOUT_MS = 3_600_000
BUCKET_LAST = 9_999

Name = Annotated[StrictStr, Field(pattern=NAME, max_length=128)]
TargetText = Annotated[StrictStr, Field(pattern=TARGET, max_length=256)]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Milliseconds = Annotated[StrictInt, Field(ge=1, le=MAX_TIMEOUT_MS)]
Weight = Annotated[StrictInt, Field(ge=0, le=1_000_000_000)]
Percent = Annotated[StrictInt, Field(ge=0, le=100)] | Annotated[StrictFloat, Field(ge=0, le=100, allow_inf_nan=False)]
ParameterName = Annotated[StrictStr, Field(pattern=PARAMETER, max_length=64)]
ParameterText = Annotated[StrictStr, Field(pattern=PRINTABLE, max_length=1024)]
FiniteFloat = Annotated[StrictFloat, Field(allow_inf_nan=False)]
ParameterValue = StrictBool | StrictInt | FiniteFloat | ParameterText
Cell = StrictInt | Annotated[StrictStr, Field(pattern=NAME, max_length=128)]
CallerName = Annotated[StrictStr, Field(pattern=PRINTABLE, min_length=1, max_length=256)]
ObjectiveGrant = Annotated[StrictStr, Field(pattern=OBJECTIVE_GRANT, max_length=128, examples=["title_ranking"])]
OverrideGrant = Annotated[StrictStr, Field(pattern=OVERRIDE_GRANT, max_length=256, examples=["title_ranking_svd/1"])]
Rate = (
    Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]
    | Annotated[StrictFloat, Field(ge=0.001, le=1_000_000_000, allow_inf_nan=False)]
)
Megabytes = Annotated[StrictInt, Field(ge=0, le=1_000_000_000)]
TenantGrant = Annotated[StrictStr, Field(pattern=OBJECTIVE_GRANT, max_length=128, examples=["globex"])]
Bucket = Annotated[StrictInt, Field(ge=0, le=BUCKET_LAST)]


class Model(BaseModel):
    """Base of every model of the language."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


class AttributeSpec(Model):
    """A context attribute that rules may look at."""

    type: Literal["string", "integer", "number", "boolean", "version", "set"] = Field(description="What it holds.")
    required: StrictBool = Field(False, description="A request without it is refused.")
    values: Annotated[list[Scalar], Field(min_length=1)] | None = Field(
        None, description="The closed domain: any other value is refused."
    )
    default: Scalar | list[StrictStr] | None = Field(None, description="What an absent attribute stands for.")
    from_: Annotated[StrictStr, Field(pattern=HEADER)] | None = Field(
        None, alias="from", description="Where the gateway may take it from: `header:<name>`."
    )


class Operators(Model):
    """Conditions on one attribute, all of which must hold."""

    not_: Scalar | Annotated[list[Scalar], Field(min_length=1)] | None = Field(
        None, alias="not", description="None of these."
    )
    in_: Annotated[list[Scalar], Field(min_length=1)] | None = Field(None, alias="in", description="One of these.")
    gt: Scalar | None = Field(None, description="Greater than.")
    gte: Scalar | None = Field(None, description="Greater than or equal.")
    lt: Scalar | None = Field(None, description="Less than.")
    lte: Scalar | None = Field(None, description="Less than or equal.")
    prefix: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        None, description="Begins with one of these."
    )
    suffix: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        None, description="Ends with one of these."
    )
    present: StrictBool | None = Field(None, description="true: has any value; false: is absent.")
    contains_any: Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        None, description="A set that holds at least one of these."
    )
    contains_all: Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        None, description="A set that holds all of these."
    )


def _condition_kind(value: Any) -> str:
    if isinstance(value, dict | Operators):
        return "operators"
    return "list" if isinstance(value, list) else "scalar"


Condition = Annotated[
    Annotated[Scalar, Tag("scalar")]
    | Annotated[Annotated[list[Scalar], Field(min_length=1)], Tag("list")]
    | Annotated[Operators, Tag("operators")],
    Discriminator(_condition_kind),
]


class When(Model):
    """Conditions by attribute, all of which must hold, and alternatives (`any_of`) of which one must."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Condition]

    any_of: Annotated[list[When], Field(min_length=1)] | None = Field(None, description="At least one must hold.")


class ActiveWindow(Model):
    """A time window: `from` is inside it, `until` is not. UTC."""

    from_: StrictStr | None = Field(None, alias="from", description="ISO 8601.", examples=["2026-11-01T00:00:00Z"])
    until: StrictStr | None = Field(None, description="ISO 8601.", examples=["2026-12-01T00:00:00Z"])


class CellSpec(Model):
    """A cell of an experiment."""

    serve: TargetText
    weight: Weight = Field(1, description="Its share among the experiment's cells.")
    parameters: dict[ParameterName, ParameterValue] = Field({}, description="Laid over the rule's parameters.")


def _cell_kind(value: Any) -> str:
    return "cell" if isinstance(value, dict | CellSpec) else "target"


class ExperimentSpec(Model):
    """An A/B test: which cell a member is in decides the target."""

    id: Annotated[StrictInt, Field(ge=0)] | Name
    layer: Name | None = Field(None, description="The layer of layers.yaml whose buckets it owns.")
    allocate: Literal["layer", "caller"] = Field(
        "layer", description="`layer`: by hash of the layer's key; `caller`: the request's allocations say the cell."
    )
    shared: StrictBool = Field(
        False, description="Other rules run it with cells, weights or targets of their own, on purpose."
    )
    cells: Annotated[
        dict[
            Cell,
            Annotated[
                Annotated[TargetText, Tag("target")] | Annotated[CellSpec, Tag("cell")], Discriminator(_cell_kind)
            ],
        ],
        Field(min_length=1),
    ]


class RuleSpec(Model):
    """A rule: if its conditions hold and no rule above it matches, its action is taken."""

    id: Name
    when: When | None = None
    active: ActiveWindow | None = None
    serve: TargetText | None = None
    split: Annotated[dict[TargetText, Weight], Field(min_length=1)] | None = None
    experiment: ExperimentSpec | None = None
    shadow: dict[TargetText, Percent] = {}
    fallback: TargetText | list[TargetText] | None = None
    parameters: dict[ParameterName, ParameterValue] = {}
    timeout_ms: Milliseconds | None = None
    hedge_after_ms: Milliseconds | None = None


class ObjectiveFile(Model):
    """`objectives/<objective>.yaml`: one objective, one owner."""

    objective: Name
    summary: StrictStr = ""
    owner: StrictStr = ""
    context: dict[Annotated[StrictStr, Field(pattern=ATTRIBUTE, max_length=128)], AttributeSpec] = {}
    unknown_attributes: Literal["ignore", "refuse"] = Field(
        "ignore", description="What a context with an attribute does that `context` does not declare."
    )
    sticky_key: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | None = None
    timeout_ms: Milliseconds | None = None
    fallback: TargetText | list[TargetText] = []
    rules: Annotated[list[RuleSpec], Field(min_length=1)]


class ImageSpec(Model):
    """The image that a shard's servers run, for checks of models; what it holds is in the manifest."""

    name: StrictStr = Field(
        description="Its name, with its tag. What NVIDIA's images hold is known without a manifest."
    )
    manifest: Annotated[StrictStr, Field(pattern=r"^images/[^/]+\.ya?ml$")] | None = Field(
        None, description="The file that says what it holds, such as images/triton.yaml."
    )


class ShardSpec(Model):
    """A shard: an isolated slice of the fleet, and its size in the cloud."""

    replicas: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(1, description="Triton servers.")
    memory_mb: Annotated[StrictInt, Field(ge=1, le=1_000_000_000)] | None = Field(
        None, description="Memory for models that each of its servers has; unset: no limit."
    )
    traffic_per_s: Rate | None = Field(
        None, description="Requests per second that all its servers take; unset: no limit."
    )
    image: ImageSpec | None = Field(None, description="What its servers run, for checks of models; unset: unknown.")
    instance_type: StrictStr | None = Field(None, description="Cloud: the instance type.")
    alternative_types: list[StrictStr] = Field(
        [], description="Cloud: types to use where instance_type cannot be had, with as many GPUs; preferred first."
    )
    min_replicas: Annotated[StrictInt, Field(ge=0)] | None = Field(None, description="Cloud: the fewest servers.")
    max_replicas: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="Cloud: the most servers.")
    spot_percent: Percent | None = Field(None, description="Cloud: the share on spot capacity.")
    scale_to_zero: StrictBool = Field(False, description="Cloud: the shard may have no server while nobody asks.")


def _placement_kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "auto"


Placing = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[Annotated[list[Name], Field(min_length=1)], Tag("list")],
    Discriminator(_placement_kind),
]


class PlacementSpec(Model):
    """Where a model is placed, and what it asks of a shard."""

    shards: Placing = Field(description="Preferred first, the rest is failover; or auto: the planner's choice.")
    replicas: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="On how many shards the planner places it; unset: one, more where its traffic asks for it."
    )
    memory_mb: Megabytes | None = Field(None, description="Memory of the model itself, without steps that it calls.")
    traffic_per_s: Rate | None = Field(None, description="Requests per second that it expects.")
    tenant: Name | None = Field(None, description="Whose it is.")


class StepSpec(Model):
    """What a step of ensembles asks of a shard."""

    memory_mb: Megabytes = Field(description="Its memory; counted once on a shard, however many ensembles call it.")


def _grant_kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "one"


class TenantSpec(Model):
    """A tenant, and whom it shares no shard with."""

    apart_from: Annotated[
        Annotated[TenantGrant, Tag("one")] | Annotated[list[TenantGrant], Tag("list")], Discriminator(_grant_kind)
    ] = Field([], description='Tenants whose models are on no shard with its own; "*" for all others.')


class FleetFile(Model):
    """`fleet.yaml`: shards, where models are placed, aliases."""

    shards: Annotated[dict[Name, ShardSpec], Field(min_length=1)]
    models: Annotated[dict[Name, PlacementSpec], Field(min_length=1)]
    steps: dict[Name, StepSpec] = Field({}, description="Memory of models that only ensembles call.")
    tenants: dict[Name, TenantSpec] = {}
    aliases: dict[Annotated[StrictStr, Field(pattern=ALIAS, max_length=256)], TargetText] = {}


BucketRange = Annotated[list[Bucket], Field(min_length=2, max_length=2)]


def _ranges_kind(value: Any) -> str:
    return "several" if isinstance(value, list) and any(isinstance(item, list) for item in value) else "one"


Ranges = Annotated[
    Annotated[BucketRange, Tag("one")] | Annotated[Annotated[list[BucketRange], Field(min_length=1)], Tag("several")],
    Discriminator(_ranges_kind),
]


class LayerSpec(Model):
    """A layer: experiments that exclude each other. Ranges are of buckets 0–9999, both ends inside."""

    key: StrictStr | Annotated[list[StrictStr], Field(min_length=1)]
    holdout: Ranges | None = Field(None, description="Buckets that are in no experiment of the layer.")
    experiments: dict[Annotated[StrictInt, Field(ge=0)] | Name, Ranges] = {}


ObjectiveGrants = Annotated[
    Annotated[ObjectiveGrant, Tag("one")]
    | Annotated[Annotated[list[ObjectiveGrant], Field(min_length=1)], Tag("list")],
    Discriminator(_grant_kind),
]
OverrideGrants = Annotated[
    Annotated[OverrideGrant, Tag("one")] | Annotated[list[OverrideGrant], Tag("list")], Discriminator(_grant_kind)
]


class CallerSpec(Model):
    """A caller: what it may use, and how much of it."""

    objectives: ObjectiveGrants = Field(description='The objectives that it may use; "*" for all.')
    rate_per_s: Rate | None = Field(None, description="The most requests per second.")
    concurrency: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="The most requests at a time."
    )
    overrides: OverrideGrants = Field(
        [], description='The targets that it may pin: model or model/version; "*" for all that are loaded.'
    )
    traffic: Literal["real", "synthetic"] = Field("real", description="synthetic: load tests, probes.")


class CallersFile(Model):
    """`callers.yaml`: who may call, which objectives, which overrides."""

    callers: Annotated[dict[CallerName, CallerSpec], Field(min_length=1)]
