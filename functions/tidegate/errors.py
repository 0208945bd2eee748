"""The one error hierarchy of Tidegate.

Every error that Tidegate raises on purpose is a `TidegateError`; nothing else is part of the API::

    TidegateError
    ├── RulesError                 the rules directory does not compile; holds every `Finding`
    ├── BundleError                bytes that are not a bundle this version can load
    ├── SettingsError              a setting that is missing or malformed
    ├── RequestError               the caller's request cannot be decided
    │   ├── UnknownObjectiveError  no objective of that name in the live rules
    │   ├── ContextError           an attribute is missing, of the wrong type or outside its domain
    │   └── NoRuleError            the context is sound and no rule of the objective matches it
    ├── DispatchError              a decision could not be carried out
    │   ├── DeadlineError          the deadline passed before any target answered
    │   ├── OverloadedError        the targets, or the gateway, take no more requests now
    │   ├── QuarantinedError       this very request has ended servers
    │   └── UnavailableError       every endpoint of every target failed or is unknown
    │       └── OperatorsOnlyError a gateway answers, but not without its operators' token
    ├── EndpointError              one attempt at one endpoint failed
    │   ├── EndpointBusyError      no connection or place in the queue was free in time: load, not a fault
    │   ├── EndpointRefusedError   the connection could not be opened
    │   ├── EndpointResetError     the connection ended before a whole response had come
    │   └── EndpointTimeoutError   no whole response within the attempt's time
    ├── StoreError                 a store (models, bundles, registry) did not answer, or has not what it should
    │   ├── ConflictError          another writer was first
    │   ├── DamagedError           the pointer to what is live cannot be decoded
    │   └── ImmutableError         a push would change what was pushed before
    ├── InterruptedWorkError       a person ended the work with Ctrl-C
    ├── PublishError               a step of a publish or rollback failed; what is live was not touched
    └── StackError                 Triton, or a model on it, could not be started or loaded
        ├── ModelConfigError       a model's files cannot be served as they stand
        └── ModelLoadError         Triton refused a model, or did not finish loading it in time

Messages name attributes, rules, files and targets. They never hold the value of a context attribute, which may be
personal data.
"""

from __future__ import annotations

from dataclasses import dataclass


class TidegateError(Exception):
    """Base of every error that Tidegate raises on purpose."""


class InterruptedWorkError(TidegateError):
    """A person ended the work with Ctrl-C."""


def printable(text: str) -> str:
    """Text for a message: what a terminal would obey, and bytes of a file's name that are no text, are escaped."""
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


class UnavailableError(DispatchError):
    """Every endpoint of every target failed, or no endpoint is known."""


class OperatorsOnlyError(UnavailableError):
    """A gateway answers, but tells its fleet only to who has its operators' token."""


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
    """The endpoint answered, but not in the form that its protocol has for the request."""


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
    """A model's files cannot be served as they stand; the message names the file."""


class ModelLoadError(StackError):
    """Triton refused to load a model, or did not finish in time. `model` is its name; `hung` is true where the load never
    answered, which wedges the server; `located` has the errors that the model's files show, as far as they were checked."""

    def __init__(self, model: str, message: str, *, hung: bool = False) -> None:
        self.model = model
        self.hung = hung
        self.located: tuple[str, ...] = ()
        super().__init__(message)
