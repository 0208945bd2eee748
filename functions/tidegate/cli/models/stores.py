"""The stores of the models commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.settings import Settings

if TYPE_CHECKING:
    from tidegate.aws.bundle_store import S3BundleStore
    from tidegate.aws.model_store import S3ModelStore


def open_stores(settings: Settings) -> tuple[S3ModelStore, S3BundleStore]:
    """The stores in the bucket that the settings name."""
    from tidegate.aws.bundle_store import S3BundleStore
    from tidegate.aws.clients import AwsClients, AwsConfig
    from tidegate.aws.model_store import S3ModelStore
    from tidegate.aws.objects import Objects

    assert settings.bucket is not None
    objects = Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket)
    return S3ModelStore(objects), S3BundleStore(objects)
