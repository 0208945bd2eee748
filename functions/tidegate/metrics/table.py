"""The table of all metrics."""

from __future__ import annotations

from enum import Enum

from tidegate.metrics.definitions import Dimension, Emf, Emitter, Exposed, Kind, Label, Unit

_SERVICE = (Dimension.SERVICE,)
BY_VARIANT = (Dimension.SERVICE, Dimension.OBJECTIVE, Dimension.VARIANT)
BY_REASON = (Dimension.SERVICE, Dimension.REASON)
_ORIGIN = (Dimension.SERVICE, Dimension.CALLER, Dimension.TRAFFIC)
_SHARD = (Dimension.SERVICE, Dimension.SHARD)
_MODEL = (Dimension.SERVICE, Dimension.SHARD, Dimension.MODEL)

BY_OBJECTIVE = (Dimension.SERVICE, Dimension.OBJECTIVE)
BY_RULE = (Dimension.SERVICE, Dimension.OBJECTIVE, Dimension.RULE, Dimension.VARIANT, Dimension.MODEL)
"""The dimensions that the console of a deployment reads, emitted with `TIDEGATE_RULE_METRICS`. The model is the one that answered, else
the one that was decided."""

_GATEWAY = ("gateway",)
_ENVOY = ("envoy",)
_HTTP = ("gateway", "resolve")
_ANSWERING = ("console", "gateway", "resolve")
_PROBE = ("probe",)
_RECONCILE = ("reconcile",)
_VALIDATE = ("validate_rules",)

SERIES = (
    Label.OBJECTIVE, Label.RULE, Label.VARIANT, Label.TRAFFIC, Label.MODEL, Label.VERSION, Label.SHARD,
)  # fmt: skip
"""The labels of what is counted of requests: those of `tidegate.ports.traffic.SeriesKey`, in its order."""

_ENDPOINT = (Label.SHARD, Label.ENDPOINT)
_PLACE = (Label.SHARD, Label.ENDPOINT, Label.MODEL)
_STEP = (Label.SHARD, Label.ENDPOINT, Label.MODEL, Label.VERSION)
_PROCESS = (Label.PROCESS,)
_BOTH = (Emitter.STACK, Emitter.AGENT)
_DECIDING = (Emitter.STACK, Emitter.RESOLVER)
_ALL = (Emitter.STACK, Emitter.AGENT, Emitter.RESOLVER)


def _count(family: str, *labels: Label, by: tuple[Emitter, ...] = (Emitter.STACK,), meaning: str = "") -> Exposed:
    return Exposed(family, Kind.COUNTER, labels, by, meaning)


def _gauge(family: str, *labels: Label, by: tuple[Emitter, ...] = (Emitter.STACK,), meaning: str = "") -> Exposed:
    return Exposed(family, Kind.GAUGE, labels, by, meaning)


class Metric(Enum):
    """A metric: its meaning, what it is in CloudWatch, and what it is in Prometheus; None: it is not there."""

    HTTP_DURATION = (
        "Time of requests over HTTP, all that the gateway answered or refused.",
        None,
        Exposed(
            "http_server_request_duration_seconds",
            Kind.HISTOGRAM,
            (Label.HTTP_METHOD, Label.HTTP_ROUTE, Label.HTTP_STATUS),
            _DECIDING,
        ),
    )
    RPC_DURATION = (
        "Time of requests over gRPC, all that the gateway answered or refused; of a stream, each of its requests.",
        None,
        Exposed("rpc_server_call_duration_seconds", Kind.HISTOGRAM, (Label.RPC_METHOD, Label.RPC_CODE)),
    )
    REQUESTS = (
        "Requests that were answered.",
        Emf(Unit.COUNT, _ANSWERING + _ENVOY, (_SERVICE, BY_VARIANT, _ORIGIN)),
        _count("tidegate_requests", *SERIES, Label.OUTCOME, meaning="Inferences that were decided, by outcome."),
    )
    REQUEST_DURATION = (
        "Time of inferences, from the start of deciding to the last byte of the answer.",
        None,
        Exposed("tidegate_request_duration_seconds", Kind.HISTOGRAM, SERIES),
    )
    LAST_REQUEST = (
        "When the last inference was.",
        None,
        _gauge("tidegate_last_request_timestamp_seconds", *SERIES),
    )
    CLIENT_ERRORS = "Answers with a 4xx status.", Emf(Unit.COUNT, _ANSWERING, (_SERVICE,)), None
    LIMITED = "Requests above a limit (429).", Emf(Unit.COUNT, _HTTP, (_SERVICE,)), None
    SEQUENCES_REFUSED = (
        "Requests of a sequence that no server has, or that pin another target than it has (409).",
        Emf(Unit.COUNT, _GATEWAY, (_SERVICE,)),
        None,
    )
    SERVER_ERRORS = (
        "Answers with a 5xx status.",
        Emf(Unit.COUNT, _ANSWERING, (_SERVICE, BY_VARIANT, _ORIGIN, BY_OBJECTIVE, BY_RULE)),
        None,
    )
    FALLBACKS = (
        "Requests that a fallback answered.",
        Emf(Unit.COUNT, _GATEWAY + _ENVOY, (_SERVICE, BY_VARIANT, BY_OBJECTIVE, BY_RULE)),
        None,
    )
    UNDECIDED = (
        "Requests that Envoy served or refused without a decision, as no resolver answered.",
        Emf(Unit.COUNT, _ENVOY, (_SERVICE,)),
        None,
    )
    UNRESOLVED = (
        "Requests over HTTP that Envoy refused with 503, as no resolver answered.",
        Emf(Unit.COUNT, _ENVOY, (_SERVICE,)),
        None,
    )
    FAILED_ATTEMPTS = (
        "Attempts that failed before one answered.",
        Emf(Unit.COUNT, _GATEWAY, (BY_VARIANT,)),
        _count("tidegate_failed_attempts", *SERIES, meaning="Attempts that failed before one answered, or none did."),
    )
    HEDGES = (
        "Requests that a second endpoint was asked for too.",
        Emf(Unit.COUNT, _GATEWAY, (BY_VARIANT,)),
        _count("tidegate_hedges", *SERIES),
    )
    HEDGES_WON = (
        "Of these, those that the second endpoint answered.",
        Emf(Unit.COUNT, _GATEWAY, (BY_VARIANT,)),
        _count("tidegate_hedges_won", *SERIES, meaning="Hedges that the second endpoint answered."),
    )
    STREAMS = "Answers that were streamed, by how they ended.", None, _count("tidegate_streams", *SERIES, Label.END)
    DECIDE_TIME = (
        "Reading the context and deciding.",
        Emf(Unit.MILLISECONDS, _GATEWAY, (_SERVICE, BY_VARIANT)),
        _count("tidegate_decide_seconds", *SERIES),
    )
    DISPATCH_TIME = (
        "From the decision to the answer.",
        Emf(Unit.MILLISECONDS, _GATEWAY, (_SERVICE, BY_VARIANT, BY_OBJECTIVE, BY_RULE)),
        None,
    )
    TRITON_TIME = (
        "The attempt that answered.",
        Emf(Unit.MILLISECONDS, _GATEWAY, (_SERVICE, BY_VARIANT)),
        _count("tidegate_triton_seconds", *SERIES, meaning="The attempts that answered, until their first byte."),
    )
    OPEN_BREAKERS = (
        "Endpoints whose breaker is open.",
        Emf(Unit.COUNT, _GATEWAY, (_SERVICE,)),
        _gauge("tidegate_breaker_open", *_PLACE, meaning="1 while the breaker of a model on an endpoint is open."),
    )
    ENDPOINT_UP = "1 while the gateway sends an endpoint requests.", None, _gauge("tidegate_endpoint_up", *_ENDPOINT)
    OUTSTANDING = (
        "Requests that an endpoint has, or that wait for it in the gateway.",
        None,
        _gauge("tidegate_endpoint_outstanding_requests", *_ENDPOINT),
    )
    QUEUED = (
        "Requests that waited in the server's own queues lately, on average.",
        None,
        _gauge("tidegate_endpoint_queued_requests", *_ENDPOINT),
    )
    IN_FLIGHT = "Requests of a model that an endpoint has.", None, _gauge("tidegate_model_in_flight_requests", *_PLACE)
    IN_FLIGHT_LIMIT = (
        "Requests of a model that an endpoint may have, as it sustains.",
        None,
        _gauge("tidegate_model_in_flight_limit_requests", *_PLACE),
    )
    USUAL_TIME = "What a model on an endpoint takes now.", None, _gauge("tidegate_model_usual_seconds", *_PLACE)
    SHARE = (
        "The share of its requests that a model on an endpoint gets: below 1 in slow start, 0 while it is ejected.",
        None,
        _gauge("tidegate_model_share_ratio", *_PLACE),
    )
    STEP_REQUESTS = (
        "Requests of a model that its server finished, those as the step of an ensemble included: `success` or `fail`.",
        None,
        _count("tidegate_model_step_requests", *_STEP, Label.RESULT, by=_BOTH),
    )
    STEP_EXECUTIONS = (
        "Batches that a server executed of a model.",
        None,
        _count("tidegate_model_step_executions", *_STEP, by=_BOTH),
    )
    STEP_QUEUE_TIME = (
        "Time of requests in the queue of a model.",
        None,
        _count("tidegate_model_step_queue_seconds", *_STEP, by=_BOTH),
    )
    STEP_INPUT_TIME = (
        "Time of requests for preparing a model's inputs.",
        None,
        _count("tidegate_model_step_compute_input_seconds", *_STEP, by=_BOTH),
    )
    STEP_INFER_TIME = (
        "Time of requests for executing a model.",
        None,
        _count("tidegate_model_step_compute_infer_seconds", *_STEP, by=_BOTH),
    )
    STEP_OUTPUT_TIME = (
        "Time of requests for extracting a model's outputs.",
        None,
        _count("tidegate_model_step_compute_output_seconds", *_STEP, by=_BOTH),
    )
    BUNDLE_AGE_SECONDS = (
        "Time since the rules were last known to be live.",
        Emf(Unit.SECONDS, _HTTP, (_SERVICE,)),
        _gauge("tidegate_rules_age_seconds", by=_DECIDING),
    )
    RULES = (
        "The rules that the gateway serves.",
        None,
        Exposed("tidegate_rules", Kind.INFO, (Label.REVISION, Label.RESOLUTION), _DECIDING),
    )
    FAILED_POLLS = (
        "Attempts to read the live rules that failed, since the gateway's process started.",
        None,
        _count("tidegate_rules_failed_polls", by=_DECIDING),
    )
    FOLLOW_STATE = (
        "1 for the state of following the rules directory: `off`, `following`, `paused` or `ended`.",
        None,
        _gauge("tidegate_follow_state", Label.STATE),
    )
    RULES_REJECTED = (
        "1 while the last change of the rules directory is refused.",
        None,
        _gauge("tidegate_rules_rejected"),
    )
    PUBLISHES = "Publishes and rollbacks under way.", None, _gauge("tidegate_publishes_under_way")
    COLD_STARTS = "First requests of an execution environment.", Emf(Unit.COUNT, _ANSWERING, (_SERVICE,)), None
    SHADOWS_SAMPLED = (
        "Requests that a shadow sampled.",
        Emf(Unit.COUNT, _GATEWAY, (_SERVICE,)),
        _count("tidegate_shadows_sampled"),
    )
    SHADOWS_LEFT_OUT = (
        "Sampled requests that are never copied.",
        Emf(Unit.COUNT, _GATEWAY, (_SERVICE, BY_REASON)),
        _count("tidegate_shadows_left_out", Label.REASON),
    )
    SHADOWS_QUEUED = (
        "Copies that were sent to the queue.",
        Emf(Unit.COUNT, _GATEWAY, (_SERVICE,)),
        _count("tidegate_shadows_queued"),
    )
    SHADOW_QUEUE_TIME = "Sending a request's copies to the queue.", Emf(Unit.MILLISECONDS, _GATEWAY, (_SERVICE,)), None
    SHADOWS_DROPPED = (
        "Copies that were dropped under pressure.",
        Emf(Unit.COUNT, ("gateway", "shadow"), (_SERVICE, BY_REASON)),
        _count("tidegate_shadows_dropped", Label.REASON),
    )
    SHADOWS_REPEATED = (
        "Messages that were delivered again, and not carried out again.",
        Emf(Unit.COUNT, ("shadow",), (_SERVICE,)),
        None,
    )
    SHADOWS_SENT = (
        "Copies that were sent to their shadow.",
        Emf(Unit.COUNT, ("shadow",), (_SERVICE,)),
        _count("tidegate_shadows_sent"),
    )
    SHADOWS_FAILED = (
        "Copies without an answer of status 200.",
        Emf(Unit.COUNT, ("shadow",), (_SERVICE,)),
        _count("tidegate_shadows_failed", Label.REASON),
    )
    QUEUE_TIME_RATIO = "Time in queues per time of compute.", Emf(Unit.NONE, _PROBE, (_SHARD, _MODEL)), None
    GPU_UTILISATION = "Mean utilisation of the GPUs.", Emf(Unit.PERCENT, _PROBE, (_SHARD,)), None
    GPU_MEMORY_USED = "Used memory of the fullest GPU.", Emf(Unit.PERCENT, _PROBE, (_SHARD,)), None
    GPU_FAULTS = "Broken GPUs; only with the DCGM exporter.", Emf(Unit.COUNT, _PROBE, (_SHARD,)), None
    READY_ENDPOINTS = "Endpoints that are ready.", Emf(Unit.COUNT, _PROBE, (_SHARD,)), None
    UNREACHABLE_ENDPOINTS = (
        "Endpoints that do not answer.",
        Emf(Unit.COUNT, _PROBE + _RECONCILE, (_SHARD, _SERVICE)),
        None,
    )
    REFUSED_ENDPOINTS = "Registered endpoints that are not trusted.", Emf(Unit.COUNT, _RECONCILE, (_SERVICE,)), None
    ENDPOINTS = (
        "Registered endpoints: `loading`, `ready`, `wedged`, `down` (no answer) or `refused` (not trusted).",
        None,
        _gauge("tidegate_endpoints", Label.SHARD, Label.STATE),
    )
    WANTED_ENDPOINTS = (
        "Endpoints that the live rules want.",
        None,
        _gauge("tidegate_wanted_endpoints", Label.SHARD),
    )
    PROBLEMS = (
        "What is lost or damaged in the stores.",
        Emf(Unit.COUNT, _RECONCILE, (_SERVICE,)),
        _gauge("tidegate_problems", meaning="What `tidegate status` lists as problems."),
    )
    HEALTHY = "1 while `tidegate status` calls the fleet healthy.", None, _gauge("tidegate_healthy")
    DEGRADED = "What happened within five minutes that degrades the fleet.", None, _gauge("tidegate_degraded")
    CHANGES = (
        "Loads and unloads of a reconcile.",
        Emf(Unit.COUNT, _RECONCILE, (_SERVICE,)),
        _gauge("tidegate_drift_changes", meaning="Loads and unloads that a reconcile would do now."),
    )
    FAILED_LOADS = (
        "Loads that failed, or wait to be tried again.",
        Emf(Unit.COUNT, _RECONCILE, (_SERVICE,)),
        _gauge("tidegate_failed_loads"),
    )
    SERVER_RESTARTS = (
        "Servers that were replaced after they ended, hung or were wedged.",
        None,
        _count("tidegate_server_restarts", Label.SHARD, by=_BOTH),
    )
    MODEL_RELOADS = (
        "Reloads of models that had stopped answering.",
        None,
        _count("tidegate_model_reloads", *_PLACE, by=_BOTH),
    )
    GATEWAY_RESTARTS = "Replacements of the gateway's process.", None, _count("tidegate_gateway_restarts")
    GATEWAY_UP = "1 while the gateway's process answers the control plane.", None, _gauge("tidegate_gateway_up")
    SERVER_READY = (
        "What `GET /ready` says: 1 while the server takes requests.",
        None,
        _gauge("tidegate_server_ready", Label.SHARD, by=(Emitter.AGENT,)),
    )
    ROLLBACKS = "Rollbacks by alarms.", Emf(Unit.COUNT, ("rollback",), (_SERVICE,)), None
    IGNORED_EVENTS = (
        "Events that ask for nothing.",
        Emf(Unit.COUNT, ("reconcile", "rollback", "validate_rules"), (_SERVICE,)),
        None,
    )
    ACCEPTED_RULES = "Archives of rules that were accepted.", Emf(Unit.COUNT, _VALIDATE, (_SERVICE,)), None
    REFUSED_RULES = "Archives of rules that were refused.", Emf(Unit.COUNT, _VALIDATE, (_SERVICE,)), None
    VALIDATION_TIME = "Reading and judging an archive of rules.", Emf(Unit.MILLISECONDS, _VALIDATE, (_SERVICE,)), None
    BUILD = "The version of Tidegate.", None, Exposed("tidegate_build", Kind.INFO, (Label.VERSION,), _ALL)
    LOOP_LAG = "How late the event loop was last.", None, _gauge("tidegate_event_loop_lag_seconds", *_PROCESS, by=_ALL)
    PROCESS_CPU = "CPU time of a process.", None, _count("tidegate_process_cpu_seconds", *_PROCESS, by=_ALL)
    PROCESS_MEMORY = (
        "Resident memory of a process.",
        None,
        _gauge("tidegate_process_resident_memory_bytes", *_PROCESS, by=_ALL),
    )
    PROCESS_FILES = (
        "Open file descriptors of a process.",
        None,
        _gauge("tidegate_process_open_fds", *_PROCESS, by=_ALL),
    )
    PROCESS_START = (
        "When a process started.",
        None,
        _gauge("tidegate_process_start_timestamp_seconds", *_PROCESS, by=_ALL),
    )

    def __init__(self, meaning: str, emf: Emf | None, exposed: Exposed | None) -> None:
        self.meaning = meaning
        self.emf = emf
        self.exposed = exposed

    @property
    def metric_name(self) -> str:
        """The name in CloudWatch."""
        return self.name.title().replace("_", "")

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that emit it to CloudWatch."""
        return () if self.emf is None else self.emf.functions

    @property
    def dimensions(self) -> tuple[tuple[Dimension, ...], ...]:
        """The sets of dimensions that it is emitted with."""
        return () if self.emf is None else self.emf.dimensions

    @property
    def unit(self) -> Unit:
        """The unit in CloudWatch."""
        return Unit.NONE if self.emf is None else self.emf.unit

    @property
    def help(self) -> str:
        """The meaning in Prometheus."""
        return self.meaning if self.exposed is None or not self.exposed.meaning else self.exposed.meaning
