"""The rule language as pydantic models: the shape of every file of a rules directory.

Unknown keys are forbidden everywhere. What needs knowledge of other files or of an attribute's type is checked by
`semantics.py`, after the shape.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, Tag

from tidegate.model_layout import NAME as MODEL_NAME
from tidegate.model_layout import VERSION
from tidegate.rules.decision import HedgeAt

_TARGET = rf"{MODEL_NAME}(/{VERSION}|@{MODEL_NAME})?"

NAME = rf"^{MODEL_NAME}$"
TARGET = rf"^{_TARGET}$"
ALIAS = rf"^{MODEL_NAME}@{MODEL_NAME}$"
PARAMETER = r"^[A-Za-z][A-Za-z0-9_-]*$"
ATTRIBUTE = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
HEADER = r"^header:[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
PRINTABLE = r"^([!-~]([ -~]*[!-~])?)?$"

EVERYTHING = "*"
OBJECTIVE_GRANT = rf"^(\*|{MODEL_NAME})$"
OVERRIDE_GRANT = rf"^(\*|{_TARGET})$"

MAX_TIMEOUT_MS = 3_600_000
BUCKET_LAST = 9_999

Name = Annotated[StrictStr, Field(pattern=NAME, max_length=128)]
TargetText = Annotated[StrictStr, Field(pattern=TARGET, max_length=256)]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Scalars = Annotated[list[Scalar], Field(min_length=1)]
Texts = Annotated[list[StrictStr], Field(min_length=1)]
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
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
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
    values: Scalars | None = Field(None, description="The closed domain: any other value is refused.")
    default: Scalar | list[StrictStr] | None = Field(None, description="The value of an absent attribute.")
    from_: Annotated[StrictStr, Field(pattern=HEADER)] | None = Field(
        None, alias="from", description="Where the gateway may take it from: `header:<name>`."
    )


class Operators(Model):
    """Conditions on one attribute, all of which must hold."""

    not_: Scalar | Scalars | None = Field(None, alias="not", description="None of these.")
    in_: Scalars | None = Field(None, alias="in", description="One of these.")
    gt: Scalar | None = Field(None, description="Greater than.")
    gte: Scalar | None = Field(None, description="Greater than or equal.")
    lt: Scalar | None = Field(None, description="Less than.")
    lte: Scalar | None = Field(None, description="Less than or equal.")
    prefix: StrictStr | Texts | None = Field(None, description="Begins with one of these.")
    suffix: StrictStr | Texts | None = Field(None, description="Ends with one of these.")
    present: StrictBool | None = Field(None, description="true: has any value; false: is absent.")
    contains_any: Texts | None = Field(None, description="A set that holds at least one of these.")
    contains_all: Texts | None = Field(None, description="A set that holds all of these.")

    def given(self) -> dict[str, Any]:
        """Return the operators that are written, with their values, in the order of the language."""
        return {name: value for field, name in _OPERATORS.items() if (value := getattr(self, field)) is not None}


_OPERATORS = {field: info.alias or field for field, info in Operators.model_fields.items()}
OPERATOR_ORDER = tuple(_OPERATORS.values())


def _condition_kind(value: Any) -> str:
    if isinstance(value, dict | Operators):
        return "operators"
    return "list" if isinstance(value, list) else "scalar"


Condition = Annotated[
    Annotated[Scalar, Tag("scalar")] | Annotated[Scalars, Tag("list")] | Annotated[Operators, Tag("operators")],
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


class FaultSpec(Model):
    """A fault for requests of the traffic class `synthetic`; no other request ever gets it."""

    delay_ms: Milliseconds | None = Field(None, description="How long an answer is held back.")
    abort_status: Annotated[StrictInt, Field(ge=400, le=599)] | None = Field(
        None, description="The HTTP status that is answered in place of a model's answer."
    )
    percent: Percent = Field(100, description="The share of the rule's synthetic requests, drawn for each.")


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
    hedge_after_ms: Milliseconds | None = Field(
        None, description="After this time without an answer, another endpoint of the target is asked too."
    )
    hedge_at: HedgeAt | None = Field(
        None, description="The same after this percentile of the target's recent latencies."
    )
    fault: FaultSpec | None = None


class RankingSpec(Model):
    """The output that ranks things: their ids, the best first."""

    output: Annotated[StrictStr, Field(min_length=1, max_length=256)] = Field(
        description="The name of the output in the models' answers."
    )
    k: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        10, description="How many ids, from the first, are compared with those of a shadow."
    )


class LimitSpec(Model):
    """What requests may take together."""

    rate_per_s: Rate | None = Field(None, description="The most requests per second.")
    burst: Count | None = Field(
        None, description="The most requests at once, after a pause; unset: as many as in a second."
    )
    concurrency: Count | None = Field(None, description="The most requests at a time.")


class ObjectiveFile(Model):
    """`objectives/<objective>.yaml`: one objective, one owner."""

    objective: Name
    summary: StrictStr = ""
    owner: StrictStr = ""
    context: dict[Annotated[StrictStr, Field(pattern=ATTRIBUTE, max_length=128)], AttributeSpec] = {}
    loggable: list[StrictStr] = Field([], description="Attributes whose values may be written to the log.")
    limits: LimitSpec | None = Field(None, description="What the requests of all callers may take together.")
    unknown_attributes: Literal["ignore", "refuse"] = Field(
        "ignore", description="What a context with an attribute does that `context` does not declare."
    )
    sticky_key: StrictStr | Texts | None = None
    timeout_ms: Milliseconds | None = None
    fallback: TargetText | list[TargetText] = []
    degraded: TargetText | None = Field(
        None, description="What Envoy serves, without a decision, while no resolver answers; unset: nothing."
    )
    responses: Literal["one", "stream"] = Field(
        "one", description="Whether a model may give several responses to a request, which callers get as a stream."
    )
    ranking: RankingSpec | None = Field(None, description="Compare this output of a shadow as a ranking.")
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
    scale_to_zero: StrictBool = Field(
        False, description="Cloud: the shard may have no server while there are no requests."
    )


def _one_or_list(value: Any) -> str:
    return "list" if isinstance(value, list) else "one"


Placing = Annotated[
    Annotated[Literal["auto"], Tag("one")] | Annotated[Annotated[list[Name], Field(min_length=1)], Tag("list")],
    Discriminator(_one_or_list),
]


class PlacementSpec(Model):
    """The placement of a model, and its demand on a shard."""

    shards: Placing = Field(description="Preferred first, the rest is failover; or auto: the planner's choice.")
    replicas: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="On how many shards the planner places it; unset: one, more where its traffic asks for it."
    )
    memory_mb: Megabytes | None = Field(None, description="Memory of the model itself, without steps that it calls.")
    traffic_per_s: Rate | None = Field(None, description="Requests per second that it expects.")
    tenant: Name | None = Field(None, description="Whose it is.")


class StepSpec(Model):
    """The demand of a step of ensembles on a shard."""

    memory_mb: Megabytes = Field(description="Its memory; counted once on a shard, however many ensembles call it.")


class TenantSpec(Model):
    """A tenant, and whom it shares no shard with."""

    apart_from: Annotated[
        Annotated[TenantGrant, Tag("one")] | Annotated[list[TenantGrant], Tag("list")], Discriminator(_one_or_list)
    ] = Field([], description='Tenants whose models are on no shard with its own; "*" for all others.')

    @property
    def others(self) -> list[str]:
        """The tenants of `apart_from`."""
        return self.apart_from if isinstance(self.apart_from, list) else [self.apart_from]


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

    key: StrictStr | Texts
    holdout: Ranges | None = Field(None, description="Buckets that are in no experiment of the layer.")
    experiments: dict[Annotated[StrictInt, Field(ge=0)] | Name, Ranges] = {}


ObjectiveGrants = Annotated[
    Annotated[ObjectiveGrant, Tag("one")]
    | Annotated[Annotated[list[ObjectiveGrant], Field(min_length=1)], Tag("list")],
    Discriminator(_one_or_list),
]
OverrideGrants = Annotated[
    Annotated[OverrideGrant, Tag("one")] | Annotated[list[OverrideGrant], Tag("list")], Discriminator(_one_or_list)
]


TrafficClass = Literal["real", "synthetic", "replay"]


class CallerSpec(LimitSpec):
    """A caller: what it may use, and how much of it."""

    objectives: ObjectiveGrants = Field(description='The objectives that it may use; "*" for all.')
    limits: dict[Name, LimitSpec] = Field({}, description="Its limits for single objectives, within those for all.")
    priority: Literal["high", "normal", "low"] = Field(
        "normal", description="Under pressure the lower class waits longer, and is refused first."
    )
    overrides: OverrideGrants = Field(
        [], description='The targets that it may pin: model or model/version; "*" for all that are loaded.'
    )
    traffic: TrafficClass = Field(
        "real", description="synthetic: load tests, probes; replay: recorded requests that are sent again."
    )
    marks: list[Literal["synthetic", "replay"]] = Field(
        [], description="Classes that it may give to single requests, by the header Tidegate-Traffic."
    )
    bundle: StrictBool = Field(
        False,
        description="Whether it may read all the rules and the addresses of shards, to decide in its own process.",
    )


class CallersFile(Model):
    """`callers.yaml`: who may call, which objectives, which overrides."""

    callers: Annotated[dict[CallerName, CallerSpec], Field(min_length=1)]
