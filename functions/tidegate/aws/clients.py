"""The boto3 clients of AWS's services."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tidegate.errors import StoreError
from tidegate.settings import Settings

T = TypeVar("T")

ATTEMPTS = 3
CONNECT_TIMEOUT_S = 2.0
POOL_CONNECTIONS = 32
LOCAL_REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsConfig:
    """Where S3 and DynamoDB are, and how long one answer may take.

    Without `endpoint_url` it is AWS itself; the default region and the credentials come from AWS's own chain. An endpoint on
    this machine gets made-up credentials if the environment has none.
    """

    endpoint_url: str | None = None
    region: str | None = None
    timeout_s: float = 5.0

    @classmethod
    def from_settings(cls, settings: Settings) -> AwsConfig:
        return cls(
            endpoint_url=settings.aws_endpoint_url, region=settings.aws_region, timeout_s=settings.store_timeout_s
        )

    @property
    def is_local(self) -> bool:
        host = urlsplit(self.endpoint_url).hostname if self.endpoint_url else None
        if host is None or host == "localhost":
            return host is not None
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


class AwsClients:
    """The clients. Each is made when it is first used, and boto3 is not imported before."""

    def __init__(self, config: AwsConfig) -> None:
        self.config = config
        self._clients: dict[str, Any] = {}
        # One for all: each reads AWS's list of endpoints again.
        self._session: Any = None
        self._lock = threading.Lock()
        # The event loop's own pool has few threads: while one store hangs, its calls would block all others.
        self._threads = ThreadPoolExecutor(POOL_CONNECTIONS, thread_name_prefix="aws")

    async def call(self, service: str, what: str, work: Callable[[Any], T]) -> T:
        """Run `work` with the client of `service` (`s3`, `dynamodb`, `sqs` or `cloudwatch`) in a thread.

        Raises:
            StoreError: the service did not answer, or refused `what`: its cause is the `ClientError`.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self._run(service, what, work))

    def _run(self, service: str, what: str, work: Callable[[Any], T]) -> T:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return work(self.client(service))
        except ClientError as error:
            details = error.response.get("Error", {})
            reason = f"{details.get('Code', 'error')}: {details.get('Message', '')}".rstrip(": ")
            advice = (
                "allow it in the policy of the role, or use other credentials (docs/operations.md)"
                if error_code(error).startswith(DENIED)
                else "try again in a moment"
            )
            raise StoreError(f"{self._place(service)} refused {what}: {reason}; {advice}") from error
        except NoCredentialsError as error:
            raise StoreError(
                f"{self._place(service)} was not asked for {what}: there are no AWS credentials; set AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and run the command again"
            ) from error
        except (BotoCoreError, Boto3Error) as error:
            raise StoreError(
                f"{self._place(service)} did not answer for {what}: {error}; try again when it does"
            ) from error

    def _place(self, service: str) -> str:
        name = {"s3": "S3", "dynamodb": "DynamoDB", "sqs": "SQS", "cloudwatch": "CloudWatch"}[service]
        return f"{name} at {self.config.endpoint_url}" if self.config.endpoint_url else name

    def client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._new_client(service)
            return self._clients[service]

    def _new_client(self, service: str) -> Any:
        from botocore.config import Config

        config = self.config
        if self._session is None:
            self._session = _session(config)
        options: dict[str, Any] = {}
        if config.is_local:
            # A proxy in the environment is not meant for this machine.
            options["proxies"] = {}
        if config.endpoint_url:
            options["s3"] = {"addressing_style": "path"}
        return self._session.client(
            service,
            endpoint_url=config.endpoint_url,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=config.timeout_s,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                max_pool_connections=POOL_CONNECTIONS,
                user_agent_appid="tidegate",
                **options,
            ),
        )


def _session(config: AwsConfig) -> Any:
    import boto3

    session = boto3.session.Session(region_name=config.region, **_local_credentials(config))
    if session.region_name is None and config.is_local:
        return boto3.session.Session(region_name=LOCAL_REGION, **_local_credentials(config))
    return session


def _local_credentials(config: AwsConfig) -> dict[str, str]:
    if not config.is_local or {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & os.environ.keys():
        return {}
    return {"aws_access_key_id": "local", "aws_secret_access_key": "local"}


DENIED = ("AccessDenied", "403", "Forbidden", "UnrecognizedClient", "InvalidAccessKeyId", "SignatureDoesNotMatch")


def error_code(error: BaseException | None) -> str:
    """Return the code of a `ClientError`, such as `NoSuchKey` or `412`; empty for any other exception."""
    # botocore's time-outs have a `response` too, which is None.
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
