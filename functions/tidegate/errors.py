"""The one error hierarchy of Tidegate.

Every error that Tidegate raises on purpose is a `TidegateError`; nothing else is part of the API::

    TidegateError
    ├── RulesError                 the rules directory does not compile; holds every `Finding`
    ├── BundleError                bytes that are not a bundle this version can load
    ├── SettingsError              a setting that is missing or malformed
    ├── RequestError               the caller's request cannot be decided
    │   ├── UnknownObjectiveError  no objective of that name in the live rules
    │   ├── ContextError           an attribute is missing, of the wrong type or outside its domain
    │   ├── NoRuleError            the context is sound and no rule of the objective matches it
    │   └── RefusedError           it is malformed, too large, or asks for what is not granted
    ├── DispatchError              a decision could not be carried out
    │   ├── DeadlineError          the deadline passed before any target answered
    │   ├── OverloadedError        the targets, or the gateway, take no more requests now
    │   ├── QuarantinedError       this very request has ended servers
    │   ├── SequenceLostError      no server has the state of the request's sequence
    │   ├── InjectedFaultError     a rule answers this synthetic request with an error
    │   └── UnavailableError       every endpoint of every target failed or is unknown
    │       └── OperatorsOnlyError a gateway answers only with its operators' token
    ├── BrokenAnswerError          an answer ended before it was complete, after its start was passed on
    ├── ModelAnswerError           a model's answer cannot be read, or not be passed on
    ├── ModelRefusedError          a model answered with an error of its own
    ├── EndpointError              one attempt at one endpoint failed
    │   ├── EndpointBusyError      no connection or place in the queue was free in time: load, not a fault
    │   ├── EndpointRefusedError   the connection could not be opened
    │   ├── EndpointResetError     the connection ended before a whole response had come
    │   ├── EndpointStubEndedError the process of a Python model ended while it answered
    │   └── EndpointTimeoutError   no whole response within the attempt's time
    ├── StoreError                 a store (models, bundles, registry) did not answer, or lacks what it should have
    │   ├── ConflictError          another writer was first
    │   ├── DamagedError           the pointer to what is live cannot be decoded
    │   └── ImmutableError         a push would change what was pushed before
    ├── InterruptedWorkError       a person ended the work with Ctrl-C
    ├── PublishError               a step of a publish or rollback failed; what is live was not touched
    └── StackError                 Triton, or a model on it, could not be started or loaded
        ├── ModelConfigError       a model's files cannot be served as they are
        └── ModelLoadError         Triton refused a model, or did not finish loading it in time

Messages name attributes, rules, files and targets. They never hold the value of a context attribute, which may be
personal data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TidegateError(Exception):
    """Base of every error that Tidegate raises on purpose."""


class InterruptedWorkError(TidegateError):
    """A person ended the work with Ctrl-C."""


def printable(text: str) -> str:
    """Return a text for a message, with control characters and undecodable bytes of file names escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One author's error, located.

    `file` is relative to the rules directory. `line` and `column` count from 1 (0: the file, or the line, as a whole).
    `rule` is the rule's id where the finding is about one, else empty. `message` says what is wrong, `hint` what would be
    right.
    """

    file: str
    line: int
    rule: str
    message: str
    hint: str = ""
    column: int = 0

    def __str__(self) -> str:
        place = ":".join(str(each) for each in (self.file, self.line, self.column) if each)
        subject = f" rule {self.rule!r}:" if self.rule else ""
        text = f"{place}:{subject} {self.message}" + (f" ({self.hint})" if self.hint else "")
        return printable(text)


class RulesError(TidegateError):
    """A rules directory does not compile. `findings` holds every error found, ordered by file and line."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = tuple(sorted(set(findings)))
        noun = "error" if len(self.findings) == 1 else "errors"
        super().__init__(f"{len(self.findings)} {noun} in the rules\n" + "\n".join(map(str, self.findings)))


class BundleError(TidegateError):
    """Bytes that are not a whole bundle of a format that this version reads."""


class SettingsError(TidegateError):
    """A setting is missing or malformed; the message names it."""


class RequestError(TidegateError):
    """The caller's request cannot be decided."""


class Refusal(StrEnum):
    """Why a request is refused. The value is the last part of a problem document's type."""

    MALFORMED = "malformed-request"
    FORBIDDEN = "forbidden"
    NOT_GRANTED = "not-granted"
    UNKNOWN_TARGET = "unknown-target"
    OTHER_TARGET = "other-target"
    JSON_TOO_LARGE = "json-too-large"
    TOO_MANY_VALUES = "too-many-values"
    UNKNOWN_REVISION = "unknown-revision"
    UNKNOWN_MODEL = "unknown-model"
    READ_ONLY = "read-only"
    CROSS_ORIGIN = "cross-origin"
    NOT_ROLLED_BACK = "not-rolled-back"
    TOOK_TOO_LONG = "took-too-long"


class RefusedError(RequestError):
    """The request is refused for what it says.

    `kind` is the reason, `details` are its parts for a program that reads them; neither holds a value of the context.
    """

    def __init__(self, kind: Refusal, detail: str, **details: object) -> None:
        self.kind = kind
        self.details = details
        super().__init__(detail)


def malformed(detail: str, **details: object) -> RefusedError:
    """A request that cannot be read."""
    return RefusedError(Refusal.MALFORMED, detail, **details)


class EventError(TidegateError):
    """An event that the function it starts does not take; the message names the field and never its value."""


class UnknownObjectiveError(RequestError):
    """No objective of that name exists in the live rules; `near` is one that may have been meant."""

    def __init__(self, objective: str, near: str | None = None) -> None:
        self.objective = objective
        self.near = near
        super().__init__(f"unknown objective {objective!r}" + (f"; did you mean {near!r}?" if near else ""))


class ContextError(RequestError):
    """A context attribute is missing, of the wrong type or outside its domain. `attribute` is its name."""

    def __init__(self, attribute: str, message: str) -> None:
        self.attribute = attribute
        super().__init__(message)


class NoRuleError(RequestError):
    """The context is sound and no rule of the objective matches it."""

    def __init__(self, objective: str) -> None:
        self.objective = objective
        super().__init__(f"no rule of objective {objective!r} matches this context")


class LimitedError(TidegateError):
    """A caller or an objective has used up a limit.

    Attributes:
        limit: which one: `caller`, `objective` or `caller-objective`, with `-rate` or `-concurrency`.
        quota: how many requests it allows: in `window_s` seconds, or at a time where that is None.
        retry_after_s: when the caller may try again, in whole seconds from now (at least 1).
    """

    def __init__(self, limit: str, message: str, quota: int, window_s: int | None, retry_after_s: int) -> None:
        self.limit = limit
        self.quota = quota
        self.window_s = window_s
        self.retry_after_s = retry_after_s
        super().__init__(message)


class DispatchError(TidegateError):
    """A decision could not be carried out. `attempts` describes what was tried, in order, without payloads."""

    def __init__(self, message: str, attempts: tuple[str, ...] = ()) -> None:
        self.attempts = attempts
        super().__init__(message)


class DeadlineError(DispatchError):
    """The deadline passed before any target answered."""


class OverloadedError(DispatchError):
    """The targets, or the gateway itself, take no more requests now; the caller may try again later."""


class QuarantinedError(DispatchError):
    """This very request has ended servers, and is sent to none for a while."""


class SequenceLostError(DispatchError):
    """No server has the state of the request's sequence: its server ended, unloaded the model or forgot the sequence, or it was
    never started. No other server may continue it."""

    def __init__(self, attempts: tuple[str, ...] = ()) -> None:
        super().__init__(
            "the sequence is lost: no server has its state (its server ended, its model was unloaded, it was idle for too long, or "
            "it was never started); start it again, with sequence_start",
            attempts,
        )


class InjectedFaultError(DispatchError):
    """The rule's fault for synthetic requests takes the place of an answer; `status` is the HTTP status that it sets."""

    def __init__(self, rule: str, status: int) -> None:
        self.status = status
        super().__init__(f"rule '{rule}' answers this synthetic request with status {status}, by its `fault`")


class UnavailableError(DispatchError):
    """Every endpoint of every target failed, or no endpoint is known."""


class OperatorsOnlyError(UnavailableError):
    """A gateway answers, but shows its fleet only to holders of its operators' token."""


class BrokenAnswerError(TidegateError):
    """An answer ended before it was complete, after its start was passed on to the caller."""


class ModelAnswerError(TidegateError):
    """A model's answer cannot be read, or not be passed on. `details` are its parts for a program that reads them."""

    def __init__(self, message: str, **details: object) -> None:
        self.details = details
        super().__init__(message)


class ModelRefusedError(TidegateError):
    """A model answered with an error of its own; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class EndpointError(TidegateError):
    """One attempt at one endpoint failed.

    `sent` says whether bytes of the request may have reached the endpoint, which may have acted on them.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        self.sent = sent
        super().__init__(message)


class EndpointRefusedError(EndpointError):
    """The connection to the endpoint could not be opened."""


class EndpointResetError(EndpointError):
    """The connection ended before a whole response had come.

    `stale` says that it had served before and ended without a byte of this response: the endpoint may have closed it at the
    very moment at which the request was sent.
    """

    def __init__(self, message: str, *, sent: bool = True, stale: bool = False) -> None:
        self.stale = stale
        super().__init__(message, sent=sent)


class EndpointStubEndedError(EndpointError):
    """The process of a Python model ended while it answered."""


class EndpointTimeoutError(EndpointError):
    """The endpoint gave no whole response within the attempt's time."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message, sent=sent)


class EndpointBusyError(EndpointError):
    """The endpoint takes no more requests now, of this model or at all: a sign of load and not of ill health."""


class EndpointAnswerTooLargeError(EndpointError):
    """The endpoint's response is larger than the gateway holds."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message, sent=sent)


class EndpointAnswerError(EndpointError):
    """The endpoint answered, but not in the form that its protocol has for the request, or ended its answer with an error."""


class StoreError(TidegateError):
    """A store (of models, of bundles, the registry) did not answer, or does not have what it should have."""


class ConflictError(StoreError):
    """Another writer was first; the message names who, and what to do."""


class DamagedError(StoreError):
    """The pointer to the live revision is there and cannot be decoded."""


class ImmutableError(StoreError):
    """A push would change what was pushed before. `model` is its name, `paths` are the files that differ."""

    def __init__(self, model: str, paths: tuple[str, ...], message: str) -> None:
        self.model = model
        self.paths = paths
        super().__init__(message)


class PublishError(TidegateError):
    """A step of a publish or a rollback failed. `step` is its name; the message says why, and what to do. What is live
    was not touched."""

    def __init__(self, step: str, message: str) -> None:
        self.step = step
        super().__init__(message)


class FollowingPausedError(TidegateError):
    """A directory that is followed has changed, and is not published, as somebody else made something live; the message
    says who, when and why."""


class StackError(TidegateError):
    """Triton, or a model on it, could not be started or loaded."""


class ModelConfigError(StackError):
    """A model's files cannot be served as they are; the message names the file."""


class ServerLostError(StackError):
    """A server ended or did not answer while it loaded `model`, which may be to blame or not."""

    def __init__(self, model: str, message: str) -> None:
        self.model = model
        super().__init__(message)


class ModelLoadError(StackError):
    """Triton refused to load a model, or did not finish in time. `model` is its name; `located` has the errors that the
    model's files show, as far as they were checked."""

    def __init__(self, model: str, message: str) -> None:
        self.model = model
        self.located: tuple[str, ...] = ()
        super().__init__(message)


class ModelHangsError(ModelLoadError):
    """The load of a model did not end in time, which wedges the server."""

    def __init__(self, model: str, timeout_s: float) -> None:
        super().__init__(model, f"did not finish loading within {timeout_s:g} s")
