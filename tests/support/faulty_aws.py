"""S3 and DynamoDB in this process, where one request of one's choice fails in one of the ways in which AWS fails."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import botocore_stubber
from moto.dynamodb import dynamodb_backends
from moto.s3.models import s3_backends
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.objects import Objects
from tidegate.aws.provision import provision

T = TypeVar("T")

REGION, BUCKET, TABLE = "us-east-1", "tidegate", "registry"

Answer = Callable[[], AWSResponse]
Fault = Callable[[AWSPreparedRequest, Answer], AWSResponse | None]
"""What happens to a request in place of its answer; None where the fault cannot happen to such a request."""


def _is_s3(request: AWSPreparedRequest) -> bool:
    return "x-amz-target" not in {name.lower() for name in request.headers}


def _is_write(request: AWSPreparedRequest) -> bool:
    return (
        request.method in ("PUT", "DELETE")
        or (_is_s3(request) and request.method == "POST")
        or "Item" in _name(request)
    )


def _has_condition(request: AWSPreparedRequest) -> bool:
    if _is_s3(request):
        return (
            bool({"if-match", "if-none-match"} & {name.lower() for name in request.headers}) and request.method != "GET"
        )
    return b"ConditionExpression" in bytes(request.body or b"") and "Item" in _name(request)


def _name(request: AWSPreparedRequest) -> str:
    """A request in a few words."""
    if _is_s3(request):
        parts = urlsplit(request.url)
        return f"{request.method} {unquote(parts.path)}{'?' + parts.query if parts.query else ''}"
    target = request.headers["X-Amz-Target"]
    return (target.decode() if isinstance(target, bytes) else str(target)).partition(".")[2]


def _refusal(request: AWSPreparedRequest, status: int, s3: str, dynamodb: str) -> AWSResponse | None:
    code = s3 if _is_s3(request) else dynamodb
    if not code:
        return None
    if _is_s3(request):
        body = f"<Error><Code>{code}</Code><Message>as the test wants</Message></Error>".encode()
        headers = {"content-type": "application/xml"}
    else:
        body = json.dumps({"__type": f"com.amazonaws.dynamodb#{code}", "message": "as the test wants"}).encode()
        headers, status = {"content-type": "application/x-amz-json-1.0"}, status if status >= 500 else 400
    return AWSResponse(request.url, status, headers, MockRawResponse(b"" if request.method == "HEAD" else body))  # type: ignore[arg-type]


def conflict(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """409: another request writes the same object."""
    if not _is_s3(request) or not _has_condition(request):
        return None
    return _refusal(request, 409, "ConditionalRequestConflict", "")


def unmet(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """412: a condition that holds is said not to."""
    return (
        _refusal(request, 412, "PreconditionFailed", "ConditionalCheckFailedException")
        if _has_condition(request)
        else None
    )


def missing(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """404: what is there is said not to be."""
    if _is_s3(request) and (request.method not in ("GET", "HEAD") or "list-type" in request.url):
        return None
    return _refusal(request, 404, "NoSuchKey", "ResourceNotFoundException")


def no_bucket(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """404 of the whole bucket."""
    return _refusal(request, 404, "NoSuchBucket", "") if request.method != "HEAD" else None


def internal(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """500."""
    return _refusal(request, 500, "InternalError", "InternalServerError")


def throttled(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """503 SlowDown, or DynamoDB's own."""
    return _refusal(request, 503 if _is_s3(request) else 400, "SlowDown", "ProvisionedThroughputExceededException")


def denied(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """403."""
    return _refusal(request, 403, "AccessDenied", "AccessDeniedException")


def timed_out(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """No answer, and nothing was done."""
    raise ReadTimeoutError(endpoint_url=request.url)


def reset(request: AWSPreparedRequest, _answer: Answer) -> AWSResponse | None:
    """The connection was closed before anything was done."""
    raise ConnectionClosedError(endpoint_url=request.url)


def lost(request: AWSPreparedRequest, answer: Answer) -> AWSResponse | None:
    """It was done, and the connection was closed before the answer came."""
    if not _is_write(request):
        return None
    answer()
    raise ConnectionClosedError(endpoint_url=request.url)


FAULTS: Mapping[str, Fault] = {
    each.__name__: each
    for each in (conflict, unmet, missing, no_bucket, internal, throttled, denied, timed_out, reset, lost)
}


def possible(request: AWSPreparedRequest) -> tuple[str, ...]:
    """The names of the faults that a request can meet."""
    found = []
    for name, fault in FAULTS.items():
        with contextlib.suppress(HTTPClientError):
            if fault(request, lambda: None) is None:  # type: ignore[arg-type, return-value]
                continue
        found.append(name)
    return tuple(found)


class FaultyAws:
    """An AWS in this process with a bucket and a table, whose `nth` request since `arm` (from 1) meets a fault, and the
    `length - 1` next. `asked` has every request since then in words, with the faults that it could meet; `met` those that
    met the fault."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.met: list[str] = []
        self.clients = _Clients(self)
        self.arm(None)

    def arm(self, fault: Fault | None, nth: int = 0, length: int = 1) -> None:
        """Begin to count requests."""
        self.asked.clear()
        self.met.clear()
        self._fault, self._nth, self._left = fault, nth, length

    def objects(self) -> Objects:
        """The bucket."""
        return Objects(self.clients, BUCKET)

    def keys(self) -> Any:
        """What is in the bucket, by key."""
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys

    def saved(self) -> Callable[[], None]:
        """Remember what is stored; a function that puts it back."""
        there = self.keys()
        keys = {key: there[key] for key in there}
        table = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables[TABLE]
        items = copy.deepcopy(table.items)

        def restore() -> None:
            there.clear()
            for key, found in keys.items():
                there[key] = found
            table.items = copy.deepcopy(items)

        return restore

    def answer(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse | None:
        """What becomes of a request; None: what moto answers."""
        self.asked.append((_name(request), possible(request)))
        if self._fault is None or len(self.asked) < self._nth or not self._left:
            return None
        body = request.body

        def answered() -> AWSResponse:
            found = botocore_stubber(event_name, request)
            assert found is not None
            if hasattr(body, "seek"):
                body.seek(0)
            return found

        self._left -= 1
        self.met.append(self.asked[-1][0])
        found = self._fault(request, answered)
        if found is None:
            self.met.pop()
            self._left = 0
        return found


class _Clients(AwsClients):
    def __init__(self, faulty: FaultyAws) -> None:
        super().__init__(AwsConfig(region=REGION))
        self._faulty = faulty

    async def call(self, service: str, what: str, work: Callable[[Any], T]) -> T:
        """Do the work at once: no thread ends on a virtual clock."""
        await asyncio.sleep(0)
        return self._run(service, what, work)

    def _made(self, service: str) -> Any:
        client = super()._made(service)
        client.meta.events.register_first("before-send.*", self._faulty.answer)
        return client


class _AtOnce:
    """What botocore uses of the module `time`. The module itself stays: other threads sleep by it."""

    @staticmethod
    def sleep(_delay_s: float) -> None:
        """Return at once."""


@contextlib.contextmanager
def aws_in_process() -> Iterator[FaultyAws]:
    """An AWS with an empty bucket and an empty table. Whoever asks again does so at once."""
    # What was saved is put back after it was replaced.
    with (
        mock_aws(),
        patch("moto.s3.models.FakeKey.dispose", lambda key: None),
        patch("botocore.endpoint.time", _AtOnce),
    ):
        aws = FaultyAws()
        asyncio.run(provision(aws.clients, BUCKET, TABLE))
        yield aws
