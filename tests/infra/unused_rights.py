"""The rights that nothing makes use of in the tests, each with its reason. A right that is neither used nor here fails one."""

from __future__ import annotations

_SENDS = "CDK grants it with sqs:SendMessage to whoever sends to a queue; it reads the queue's address or attributes"
_POLLS = "CDK grants it with what Lambda's poller needs; the poller may use it for a batch that failed in part"
_REPEATS = (
    "Powertools reads a record that DynamoDB does not return with the condition that failed, as it does by default"
)

_LOST = "It is read where the pointer to the live revision is lost, to say what was live in the refusal to publish"

UNUSED: dict[tuple[str, str, str], str] = {
    **{
        (role, action, "Functions-Dead"): _SENDS
        for role in ("probe", "reconcile", "rollback", "validate_rules")
        for action in ("sqs:GetQueueAttributes", "sqs:GetQueueUrl")
    },
    **{
        (role, action, f"Functions-{queue}"): _POLLS
        for role, queue in (
            ("reconcile", "ReconcileQueue"),
            ("shadow", "ShadowQueue"),
            ("validate_rules", "ValidateRulesQueue"),
        )
        for action in ("sqs:ChangeMessageVisibility", "sqs:GetQueueUrl")
    },
    ("PublishJobRole", "s3:GetObject", "history/*"): _LOST,
    **{(role, "dynamodb:GetItem", f"once#{role}"): _REPEATS for role in ("rollback", "validate_rules")},
}
"""By (role, action, what it is for): why it is there all the same."""
