"""The caller of a request according to the authorizer in front of a function; nothing else in a request is trusted.

The events: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html and
https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any


def authorized_caller(claim: str) -> Callable[[MutableMapping[str, Any]], str | None]:
    """Return a function that gives the caller of an ASGI scope.

    - A JWT authorizer: the claim `claim` of the token, else its `sub`.
    - An IAM authorizer, a Function URL's included: the ARN of the user, or of the role without its session, so that one role
      is one caller: `arn:aws:sts::123456789012:assumed-role/home-screen`.
    """

    def caller_of(scope: MutableMapping[str, Any]) -> str | None:
        authorizer = _object(scope["aws.event"]["requestContext"].get("authorizer"))
        claims = _object(_object(authorizer.get("jwt")).get("claims"))
        if claims:
            return _text(claims.get(claim)) or _text(claims.get("sub"))
        return _principal(_text(_object(authorizer.get("iam")).get("userArn")))

    return caller_of


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _principal(arn: str | None) -> str | None:
    if arn is None or ":assumed-role/" not in arn:
        return arn
    role, _, session = arn.rpartition("/")
    return role if session and role.count("/") else arn
