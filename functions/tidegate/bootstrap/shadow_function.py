"""Carries out the copies that a local stack's queue holds by the function `shadow`, in place of Lambda's event source mapping:

    python -P -m tidegate.bootstrap.shadow_function QUEUE_URL PARENT

It takes batches of messages, gives them to the handler, and deletes those that did not fail. The others come again, and go to the
dead-letter queue in the end. It ends with its parent.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tidegate.bootstrap.parent import end_with_parent, environment_without_secrets
from tidegate.errors import StackError
from tidegate.settings import Settings

logger = logging.getLogger(__name__)

LOCAL_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""Those of the AWS in memory, which takes any."""

BATCH = 10
BATCH_S = 120.0
"""The time of a batch, as that of the function on AWS."""

LOOK_S = 0.2
"""How often an empty queue is asked. A request that waits for messages would hold up every other write to the AWS in memory."""

AGAIN_S = 1.0
NICENESS = 15
PAYS_NO_METRICS = {"POWERTOOLS_METRICS_DISABLED": "true"}


class ShadowFunction:
    """Keeps the process running, until cancelled.

    Args:
        settings: those of the stack, with its stores in memory and the queue.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "tidegate.bootstrap.shadow_function",
                str(self._settings.shadow_queue_url),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                # The one line on standard output is the stack's.
                stdout=sys.stderr.fileno(),
                env=_environment(self._settings),
                start_new_session=True,
            )
            try:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            logger.warning("the process that carries copies for shadows out ended (%s); starting it again", code)
            await asyncio.sleep(AGAIN_S)


def require_parts() -> None:
    """Raise `StackError` where what the functions need beside the base is not installed."""
    if importlib.util.find_spec("aws_xray_sdk") is None:
        raise StackError(
            "TIDEGATE_SHADOW_CARRIER=queue runs the function `shadow`, which needs the extra `lambda`: install "
            "tidegate[local,lambda], or set it to process"
        )


def _environment(settings: Settings) -> dict[str, str]:
    function = Settings(
        bucket=settings.bucket,
        registry_table=settings.registry_table,
        aws_endpoint_url=settings.aws_endpoint_url,
        aws_region=settings.aws_region,
        store_timeout_s=settings.store_timeout_s,
        connect_timeout_ms=settings.connect_timeout_ms,
        max_response_bytes=settings.max_response_bytes,
        shadow_timeout_ms=settings.shadow_timeout_ms,
        shadow_in_flight=settings.shadow_in_flight,
        tracing=settings.tracing,
        log_level="WARNING",
    )
    return environment_without_secrets() | function.to_environment() | LOCAL_CREDENTIALS | PAYS_NO_METRICS


class _Context:
    """What the handler and Powertools read of Lambda's context."""

    function_name = "shadow"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:shadow"

    def __init__(self, request_id: str) -> None:
        self.aws_request_id = request_id
        self._until_s = time.monotonic() + BATCH_S

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._until_s - time.monotonic()) * 1000))


def carry_out(sqs: Any, queue_url: str) -> bool:
    """Give the next batch of messages to the function; return False if there is none."""
    from tidegate.bootstrap.shadow_handler import handler

    found = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=0).get("Messages", [])
    if not found:
        return False
    result = handler({"Records": [_record(each) for each in found]}, _Context(found[0]["MessageId"]))
    failed = {each["itemIdentifier"] for each in result["batchItemFailures"]}
    done = [each for each in found if each["MessageId"] not in failed]
    if done:
        entries = [{"Id": each["MessageId"], "ReceiptHandle": each["ReceiptHandle"]} for each in done]
        sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
    return True


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:shadow",
        "awsRegion": "us-east-1",
    }


def main(queue_url: str, parent: str) -> None:
    end_with_parent(int(parent))
    os.nice(NICENESS)
    from tidegate.aws.clients import AwsClients, AwsConfig

    sqs = AwsClients(AwsConfig.from_settings(Settings.from_environment())).client("sqs")
    while True:
        try:
            has_worked = carry_out(sqs, queue_url)
        except Exception as error:  # noqa: BLE001  # as Lambda does: the messages come again
            print(f"a batch of copies for shadows failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(AGAIN_S)
        else:
            if not has_worked:
                time.sleep(LOOK_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
