"""The resources that outlive all others: models, bundles, the registry, facts, secrets, images, the alarm topic."""

from __future__ import annotations

import json
from collections.abc import Iterable

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secrets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct
from tidegate.aws.layout import EXPIRY, PARTITION_KEY, SHADOW_COPIES, SHADOW_TALLIES, SORT_KEY

from infra.contract import LIVE
from infra.fixed_settings import FIXED_SETTINGS, fixed_settings
from infra.stacks.parts import Stage, explain, publish, stack_output

TALLIES_DAYS = 90
AWS_OWNED = "The operator chose encryption: service_managed."


class StorageStack(cdk.Stack):
    """The stage's data. Whether it survives its stack is the setting `retain_data`."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=stage.called("storage"),
            description="Tidegate: models, bundles, registry, facts, secrets, images, alarm topic",
            termination_protection=stage.settings.termination_protection,
        )
        self.stage = stage
        self.key = self._key() if stage.settings.encryption == "customer_key" else None
        self.logs_bucket = self._logs_bucket()
        self.bucket = self._bucket()
        published = stack_output(self.stack_name, publish(self, self.bucket.bucket_arn))
        self._bucket_reference = json.dumps(published, separators=(",", ":"))
        self.registry = self._table("Registry", ttl_attribute=EXPIRY)
        self.facts = self._table("Facts", ttl_attribute=None)
        self.management_secret = self._secret(
            "ManagementSecret",
            "What Triton's management APIs ask of whoever loads and unloads models",
            "Servers read it when they start, so a rotation is a rolling replacement; docs/operations.md has the steps.",
        )
        # With and without CloudFront: a deleted secret cannot be created again under its name.
        self.edge_key = self._secret(
            "EdgeKey",
            "What CloudFront proves to the gateway that a request came through it",
            "CloudFront and the gateway must have the same: docs/operations.md has the steps of a rotation.",
        )
        self.sequence_key = self._secret(
            "SequenceKey",
            "What keeps the ids of callers' sequences at the models' servers unpredictable",
            "Another key ends the running sequences of named callers: docs/operations.md has the steps of a rotation.",
        )
        self.triton_images = self._images("TritonImages", "triton")
        self.agent_images = self._images("AgentImages", "agent")
        # There whether they are used or not: a repository that goes takes its images with it.
        self.envoy_images = self._images("EnvoyImages", "envoy")
        self.dcgm_images = self._images("DcgmImages", "dcgm-exporter")
        self.topic = self._topic()
        names = (
            self.logs_bucket.bucket_name,
            self.topic.topic_arn,
            self.edge_key.secret_arn,
            self.sequence_key.secret_arn,
        )
        for value in (*names, *([self.key.key_arn] if self.key else [])):
            publish(self, value)
        fixed = json.dumps(fixed_settings(stage.settings), sort_keys=True)
        for name, value, what in (
            (FIXED_SETTINGS, fixed, "Settings that cannot change after the first deployment"),
            ("BucketName", self.bucket.bucket_name, "TIDEGATE_BUCKET: models, bundles and the pointer"),
            ("LogsBucketName", self.logs_bucket.bucket_name, "Access logs"),
            ("RegistryTableName", self.registry.table_name, "TIDEGATE_REGISTRY_TABLE"),
            ("FactsTableName", self.facts.table_name, "TIDEGATE_FACTS_TABLE"),
            ("ManagementSecretArn", self.management_secret.secret_arn, "TIDEGATE_MANAGEMENT_SECRET_ARN"),
            ("EdgeKeyArn", self.edge_key.secret_arn, "Its versions are the setting cloudfront.key_versions"),
            ("SequenceKeyArn", self.sequence_key.secret_arn, "A version of it may be the setting sequence_key_version"),
            ("TritonImagesUri", self.triton_images.repository_uri, "Push Triton here"),
            ("DcgmImagesUri", self.dcgm_images.repository_uri, "Push the DCGM exporter here"),
            ("EnvoyImagesUri", self.envoy_images.repository_uri, "Push Envoy here"),
            ("AgentImagesUri", self.agent_images.repository_uri, "Push the agent here"),
        ):
            cdk.CfnOutput(self, name, value=value, description=what)

    def prefix_reasons(self, prefixes: Iterable[str]) -> dict[str, str]:
        """Why a policy of another stack may end a resource with `*`: cdk-nag's check -> reason, for prefixes of the bucket."""
        return {
            f"AwsSolutions-IAM5[Resource::{self._bucket_reference}/{prefix}*]": (
                f"The names of the objects under {prefix} are not known before they are written."
            )
            for prefix in prefixes
        }

    def _key(self) -> kms.Key:
        key = kms.Key(
            self,
            "Key",
            description=f"Tidegate {self.stage.name}: everything stored",
            enable_key_rotation=True,
            removal_policy=self.stage.on_delete,
        )
        account = {"StringEquals": {"aws:SourceAccount": self.account}}
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsAndEventsSendToEncryptedTopicsAndQueues",
                principals=[
                    iam.ServicePrincipal("cloudwatch.amazonaws.com"),
                    iam.ServicePrincipal("events.amazonaws.com"),
                ],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions=account,
            )
        )
        groups = f"arn:{self.partition}:logs:{self.region}:{self.account}:log-group:*"
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LogsAreEncrypted",
                principals=[iam.ServicePrincipal(f"logs.{self.region}.{self.url_suffix}")],
                actions=["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "kms:DescribeKey"],
                resources=["*"],
                conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
            )
        )
        return key

    def _logs_bucket(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "AccessLogs",
            # Load balancers and S3 write access logs with S3's own keys only.
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            removal_policy=self.stage.on_delete,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=cdk.Duration.days(self.stage.settings.access_log_retention_days),
                    noncurrent_version_expiration=cdk.Duration.days(1),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                )
            ],
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="BalancersWriteAccessLogs",
                principals=[iam.ServicePrincipal("logdelivery.elasticloadbalancing.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects("balancers/*")],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        explain(
            bucket,
            nag={"AwsSolutions-S1": "It holds the access logs; logging access to them would log itself."},
            checkov={"CKV_AWS_18": "It holds the access logs; logging access to them would log itself."},
        )
        return bucket

    def _bucket(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.S3_MANAGED if self.key is None else s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=None if self.key is None else True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            server_access_logs_bucket=self.logs_bucket,
            server_access_logs_prefix="bucket/",
            removal_policy=self.stage.on_delete,
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=cdk.Duration.days(self.stage.settings.old_version_days),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                ),
                # The least that S3 can do: copies of requests may hold personal data.
                s3.LifecycleRule(
                    prefix=SHADOW_COPIES,
                    expiration=cdk.Duration.days(1),
                    noncurrent_version_expiration=cdk.Duration.days(1),
                ),
                # Every batch of copies replaces an object, so that old versions are a thousand times the tallies.
                s3.LifecycleRule(
                    prefix=SHADOW_TALLIES,
                    expiration=cdk.Duration.days(TALLIES_DAYS),
                    noncurrent_version_expiration=cdk.Duration.days(1),
                ),
            ],
        )
        # Without the pointer it is unknown what is live. Taking the stage down replaces this policy.
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="NobodyDeletesThePointer",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:DeleteObject", "s3:DeleteObjectVersion"],
                resources=[bucket.arn_for_objects(f"{LIVE}*")],
            )
        )
        # The L2 property would add a custom resource with a function of its own.
        resource = bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
        )
        return bucket

    def _table(self, construct_id: str, ttl_attribute: str | None) -> dynamodb.Table:
        table = dynamodb.Table(
            self,
            construct_id,
            partition_key=dynamodb.Attribute(name=PARTITION_KEY, type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name=SORT_KEY, type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.AWS_MANAGED
            if self.key is None
            else dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=self.key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            time_to_live_attribute=ttl_attribute,
            deletion_protection=self.stage.settings.termination_protection,
            removal_policy=self.stage.on_delete,
        )
        if self.key is None:
            explain(table, checkov={"CKV_AWS_119": AWS_OWNED})
        return table

    def _secret(self, construct_id: str, description: str, rotation: str) -> secrets.Secret:
        """Add a random secret; `rotation` says why nothing rotates it."""
        secret = secrets.Secret(
            self,
            construct_id,
            description=description,
            encryption_key=self.key,
            generate_secret_string=secrets.SecretStringGenerator(exclude_punctuation=True, password_length=48),
            removal_policy=self.stage.on_delete,
        )
        reasons = {"CKV2_AWS_57": rotation}
        if self.key is None:
            reasons["CKV_AWS_149"] = AWS_OWNED
        explain(secret, nag={"AwsSolutions-SMG4": rotation}, checkov=reasons)
        return secret

    def edge_key_value(self, version: str) -> str:
        """A reference that CloudFormation replaces by the value that a version of the edge key has, so no template holds it. It
        names the version, so that another version is a change of the template."""
        return cdk.SecretValue.secrets_manager(self.edge_key.secret_arn, version_id=version).unsafe_unwrap()

    def _images(self, construct_id: str, name: str) -> ecr.Repository:
        repository = ecr.Repository(
            self,
            construct_id,
            repository_name=self.stage.repository(name),
            encryption=ecr.RepositoryEncryption.AES_256 if self.key is None else ecr.RepositoryEncryption.KMS,
            encryption_key=self.key,
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            removal_policy=self.stage.on_delete,
            empty_on_delete=not self.stage.settings.retain_data,
        )
        if self.key is None:
            explain(repository, checkov={"CKV_AWS_136": AWS_OWNED})
        return repository

    def _topic(self) -> sns.Topic:
        topic = sns.Topic(
            self, "Alarms", display_name=f"Tidegate {self.stage.name}", master_key=self.key, enforce_ssl=True
        )
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsPublish",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        for address in self.stage.settings.alarms.emails:
            topic.add_subscription(subscriptions.EmailSubscription(address))
        if self.key is None:
            # An alarm cannot use the key that SNS itself manages: nobody can change that key's policy.
            reason = f"{AWS_OWNED} Alarm messages hold names and numbers only."
            explain(topic, nag={"AwsSolutions-SNS2": reason}, checkov={"CKV_AWS_26": reason})
        return topic
