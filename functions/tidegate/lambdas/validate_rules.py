"""The validator's function: an archive of rules lands in the bucket, or a call names one; a verdict on it is written.

It publishes nothing: what goes live is `tidegate publish`'s.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from typing import Any

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import created_objects, is_from_queue
from tidegate.aws.idempotency import once_per
from tidegate.aws.layout import ARCHIVE_SUFFIX, RULES, verdict_key
from tidegate.aws.objects import Objects
from tidegate.control.rules_archive import MOST_ARCHIVE_BYTES, refused
from tidegate.control.validating import Verdict, validate_archive
from tidegate.errors import RulesError, SettingsError, StoreError, TidegateError
from tidegate.settings import Settings


@functools.cache
def _wired() -> tuple[EventFunction, Objects, Settings]:
    settings = Settings.from_environment()
    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must be set")
    function = EventFunction("validate_rules", settings.log_level or "INFO")
    return function, Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket), settings


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Judge what a batch of messages names, each archive once; or what a call names, `{"key": "rules/….zip"}`, again.

    Raises:
        StoreError: the bucket did not answer, or a call names an archive that is not there.
        EventError: the event is none of S3.
        TidegateError: a call is malformed.
    """
    function, objects, settings = _wired()
    function.begin(context)

    def judge(data: Mapping[str, Any]) -> dict[str, Any]:
        # Without the findings, which may be more than one item of the registry's table holds.
        document = _judge(data["key"], data["etag"])
        return {name: document[name] for name in ("key", "status", "revision", "summary")}

    judge_once = once_per("validate_rules", settings, judge, context)

    def landed(bucket: str, key: str) -> dict[str, Any]:
        if bucket != objects.bucket:
            function.ignore("the object is in another bucket", bucket=bucket)
            return {"status": "ignored"}
        if not _is_archive(key):
            function.ignore("the object is not an archive of rules", key=key)
            return {"status": "ignored"}
        found = function.run(lambda: objects.head(key))
        if found is None:
            function.ignore("the archive is gone", key=key)
            return {"status": "gone"}
        return judge_once({"key": found.key, "etag": found.etag})

    def named(message: object) -> dict[str, Any]:
        results = [landed(bucket, key) for bucket, key in created_objects(message)]
        if not results:
            function.ignore("no object was created")
        return {"status": "ignored"} if not results else results[0] if len(results) == 1 else {"results": results}

    if is_from_queue(event):
        return function.each_message(event, context, named)
    if isinstance(event, Mapping) and event.keys() & {"Records", "source", "Event"}:
        return named(event)
    return _judge(_called(event, objects.bucket), None)


def _called(event: object, bucket: str) -> str:
    """The key that a call names."""
    how = f'call with {{"key": "{RULES}<name>{ARCHIVE_SUFFIX}"}}'
    if not isinstance(event, Mapping) or not isinstance(event.get("key"), str) or event.keys() - {"key", "bucket"}:
        raise TidegateError(f"the call is malformed: {how}")
    if event.get("bucket", bucket) != bucket:
        raise TidegateError(f"the function reads its own bucket alone: {how}")
    key: str = event["key"]
    if not _is_archive(key):
        raise TidegateError(f"the key is none of an archive of rules: {how}")
    return key


def _is_archive(key: str) -> bool:
    return key.startswith(RULES) and key.endswith(ARCHIVE_SUFFIX)


def _judge(key: str, etag: str | None) -> dict[str, Any]:
    """Judge an archive, write the verdict beside the archives, and tell of it. `etag` is which object a message means."""
    function, objects, _ = _wired()
    began = time.perf_counter()
    found = function.run(lambda: objects.head(key))
    if found is None:
        raise StoreError(f"there is no object {key} in bucket {objects.bucket}; upload it first")
    if found.size_bytes > MOST_ARCHIVE_BYTES:
        error = refused(
            "", f"it has {found.size_bytes} bytes, more than {MOST_ARCHIVE_BYTES}", "leave out what is no rule"
        )
        verdict = _unread(error)
    else:
        stored = function.run(lambda: objects.get(key))
        if stored is None or (etag is not None and stored.etag != etag):
            raise StoreError(f"object {key} was replaced while it was read")
        verdict = validate_archive(stored.data, at=time.time())
    document = {"key": key, "etag": found.etag, **verdict.as_dict()}
    function.run(lambda: objects.put(verdict_key(key), json.dumps(document, ensure_ascii=False).encode()))
    _report(function, key, verdict, time.perf_counter() - began)
    return document


def _unread(error: RulesError) -> Verdict:
    return Verdict("", "", "refused: the archive was not read", error.findings)


def _report(function: EventFunction, key: str, verdict: Verdict, took_s: float) -> None:
    document = verdict.as_dict()
    fields = {"key": key, "status": document["status"], "revision": verdict.revision, "counts": document["counts"]}
    level = function.logger.info if verdict.accepted else function.logger.warning
    # Findings may quote a context of a case: they are in the verdict, and not in the log.
    level("rules were judged", extra=fields)
    metrics = function.metrics()
    metrics.add_metric("AcceptedRules", "Count", int(verdict.accepted))
    metrics.add_metric("RefusedRules", "Count", int(not verdict.accepted))
    metrics.add_metric("ValidationTime", "Milliseconds", took_s * 1000)
    metrics.flush_metrics()
