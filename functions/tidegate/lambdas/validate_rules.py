"""The validator's function: writes a verdict on an archive of rules that was uploaded, or that a call names."""

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
from tidegate.control.rules_archive import ARCHIVE, MOST_ARCHIVE_BYTES, Verdict, refused, validate_archive
from tidegate.errors import SettingsError, StoreError, TidegateError
from tidegate.metrics import Metric
from tidegate.settings import Settings


@functools.cache
def _wired() -> tuple[EventFunction, Objects, Settings]:
    settings = Settings.from_environment()
    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must be set")
    function = EventFunction("validate_rules", settings.log_level)
    return function, Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket), settings


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Judge each archive in a batch of messages once, or the one that a call names (`{"key": "rules/….zip"}`) again.

    Raises:
        StoreError: the archive of a call is missing.
        EventError: the event is not one of S3.
        TidegateError: a call is malformed.
    """
    function, objects, settings = _wired()
    function.begin(context)

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
        etag = found.etag

        def judge() -> dict[str, Any]:
            # Without the findings, which may exceed the size of an item in the registry's table.
            document = _judge(key, etag)
            return {name: document[name] for name in ("key", "status", "revision", "summary")}

        return once_per("validate_rules", settings, {"key": key, "etag": etag}, judge, context)

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
    how = f'call with {{"key": "{RULES}<name>{ARCHIVE_SUFFIX}"}}'
    if not isinstance(event, Mapping) or not isinstance(event.get("key"), str) or event.keys() - {"key", "bucket"}:
        raise TidegateError(f"the call is malformed: {how}")
    if event.get("bucket", bucket) != bucket:
        raise TidegateError(f"the function reads its own bucket alone: {how}")
    key: str = event["key"]
    if not _is_archive(key):
        raise TidegateError(f"the key is not that of an archive of rules: {how}")
    return key


def _is_archive(key: str) -> bool:
    return key.startswith(RULES) and key.endswith(ARCHIVE_SUFFIX)


def _judge(key: str, etag: str | None) -> dict[str, Any]:
    """Judge an archive, which must have the ETag of a message, write the verdict and report it."""
    function, objects, _ = _wired()
    began = time.perf_counter()
    found = function.run(lambda: objects.head(key))
    if found is None:
        raise StoreError(f"there is no object {key} in bucket {objects.bucket}; upload it first")
    if found.size_bytes > MOST_ARCHIVE_BYTES:
        message = f"it has {found.size_bytes} bytes, more than {MOST_ARCHIVE_BYTES}"
        error = refused(ARCHIVE, message, "leave out what is not a rule")
        verdict = Verdict("", None, "refused: the archive was not read", error.findings)
    else:
        stored = function.run(lambda: objects.get(key))
        if stored is None or (etag is not None and stored.etag != etag):
            raise StoreError(f"object {key} was replaced while it was read")
        verdict = validate_archive(stored.data, at=time.time())
    document = {"key": key, "etag": found.etag, **verdict.as_dict()}
    function.run(lambda: objects.put(verdict_key(key), json.dumps(document, ensure_ascii=False).encode()))
    _report(function, key, verdict, time.perf_counter() - began)
    return document


def _report(function: EventFunction, key: str, verdict: Verdict, took_s: float) -> None:
    document = verdict.as_dict()
    fields = {"key": key, "status": document["status"], "revision": verdict.revision, "counts": document["counts"]}
    level = function.logger.info if verdict.accepted else function.logger.warning
    # Findings may quote the context of a case, and so are not logged.
    level("rules were judged", extra=fields)
    function.emit(
        {
            Metric.ACCEPTED_RULES: int(verdict.accepted),
            Metric.REFUSED_RULES: int(not verdict.accepted),
            Metric.VALIDATION_TIME: took_s * 1000,
        }
    )
