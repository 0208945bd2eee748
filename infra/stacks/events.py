"""The events that start the control plane: new objects in the bucket, through queues, and schedules in case an event is lost."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.stacks.parts import Stage, explain

MAX_RECEIVES = 5
RETENTION = cdk.Duration.days(14)
COPIES_RETENTION = cdk.Duration.hours(1)
"""How long copies of requests are kept: they may hold personal data, and an old one says nothing about a shadow."""

EVENT_AGE_S = 3_600


def make_queue(
    scope: Construct,
    construct_id: str,
    name: str,
    key: kms.IKey | None,
    *,
    visibility: cdk.Duration | None = None,
    dead: sqs.Queue | None = None,
    max_receives: int = MAX_RECEIVES,
    retention: cdk.Duration = RETENTION,
) -> sqs.Queue:
    """Add an encrypted queue that requires TLS; messages that keep failing go to `dead`."""
    queue = sqs.Queue(
        scope,
        construct_id,
        queue_name=name,
        encryption=sqs.QueueEncryption.SQS_MANAGED if key is None else sqs.QueueEncryption.KMS,
        encryption_master_key=key,
        data_key_reuse=None if key is None else cdk.Duration.hours(1),
        enforce_ssl=True,
        visibility_timeout=visibility,
        retention_period=retention,
        dead_letter_queue=None if dead is None else sqs.DeadLetterQueue(queue=dead, max_receive_count=max_receives),
    )
    reasons = {"AwsSolutions-SQS3": "It is a dead-letter queue itself."} if dead is None else {}
    other = (
        {"CKV_AWS_27": "SQS encrypts it with its own key; the check knows keys of KMS alone."} if key is None else {}
    )
    explain(queue, nag=reasons, checkov=other)
    return queue


class Events(Construct):
    """Rules on the account's default event bus; undelivered events go to `undelivered`."""

    def __init__(self, scope: Construct, *, stage: Stage, undelivered: sqs.Queue) -> None:
        super().__init__(scope, "Events")
        self._stage, self._undelivered = stage, undelivered

    def object_created(
        self, construct_id: str, description: str, bucket_name: str, prefixes: list[str], queue: sqs.Queue
    ) -> None:
        """Send a message to `queue` for every object that is created under one of the prefixes."""
        pattern = {
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {"bucket": {"name": [bucket_name]}, "object": {"key": [{"prefix": each} for each in prefixes]}},
        }
        rule = self._rule(construct_id, description, queue.queue_arn, event_pattern=pattern)
        for each in (queue, self._undelivered):
            each.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=f"{construct_id}Sends",
                    principals=[iam.ServicePrincipal("events.amazonaws.com")],
                    actions=["sqs:SendMessage"],
                    resources=[each.queue_arn],
                    conditions={"ArnEquals": {"aws:SourceArn": rule.attr_arn}},
                )
            )

    def every(self, construct_id: str, description: str, minutes: int, function: lambda_.Function) -> None:
        """Invoke a function on a schedule."""
        unit = "minute" if minutes == 1 else "minutes"
        rule = self._rule(
            construct_id, description, function.function_arn, schedule_expression=f"rate({minutes} {unit})"
        )
        lambda_.CfnPermission(
            self,
            f"{construct_id}Invokes",
            action="lambda:InvokeFunction",
            function_name=function.function_arn,
            principal="events.amazonaws.com",
            source_arn=rule.attr_arn,
            source_account=cdk.Aws.ACCOUNT_ID,
        )

    def _rule(self, construct_id: str, description: str, target_arn: str, **kind: Any) -> events.CfnRule:
        of = events.CfnRule
        is_schedule = "schedule_expression" in kind
        return of(
            self,
            construct_id,
            name=self._stage.called(_hyphenated(construct_id)),
            description=description,
            state="ENABLED",
            targets=[
                of.TargetProperty(
                    id="Target",
                    arn=target_arn,
                    # The next tick makes up for a lost one; a lost object does not come again.
                    retry_policy=of.RetryPolicyProperty(
                        maximum_event_age_in_seconds=60 if is_schedule else EVENT_AGE_S,
                        maximum_retry_attempts=0 if is_schedule else 20,
                    ),
                    dead_letter_config=None
                    if is_schedule
                    else of.DeadLetterConfigProperty(arn=self._undelivered.queue_arn),
                )
            ],
            **kind,
        )


def _hyphenated(construct_id: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in construct_id).lstrip("-")
