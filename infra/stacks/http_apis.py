"""What the HTTP APIs of callers and of operators have in common."""

from __future__ import annotations

import json

from aws_cdk import aws_apigatewayv2 as api
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.setting_groups import IamAuthorizer, JwtAuthorizer

ACCESS_LOG = {
    "requestId": "$context.requestId",
    "time": "$context.requestTime",
    # The route, not the path: no query string, no address, no name of a caller is in a log.
    "route": "$context.routeKey",
    "status": "$context.status",
    "latencyMs": "$context.responseLatency",
    "integrationLatencyMs": "$context.integrationLatency",
    "integrationStatus": "$context.integration.integrationStatus",
    "error": "$context.error.messageString",
    "authorizerError": "$context.authorizer.error",
    "responseBytes": "$context.responseLength",
}


def authorizer_of(settings: JwtAuthorizer | IamAuthorizer, construct_id: str) -> api.IHttpRouteAuthorizer:
    """Return the authorizer of the routes of an API."""
    if isinstance(settings, JwtAuthorizer):
        return authorizers.HttpJwtAuthorizer(construct_id, settings.issuer, jwt_audience=settings.audience)
    return authorizers.HttpIamAuthorizer()


def scopes_of(settings: JwtAuthorizer | IamAuthorizer) -> list[str] | None:
    """Return the scopes of which a token needs one, as a route takes them."""
    return (settings.scopes or None) if isinstance(settings, JwtAuthorizer) else None


def default_stage(
    scope: Construct, construct_id: str, http_api: api.HttpApi, log: logs.ILogGroup, rate_per_s: float, burst: int
) -> api.CfnStage:
    """Add the stage at the root of the API's address, with its log and its limits."""
    return api.CfnStage(
        scope,
        construct_id,
        api_id=http_api.api_id,
        stage_name="$default",
        auto_deploy=True,
        access_log_settings=api.CfnStage.AccessLogSettingsProperty(
            destination_arn=log.log_group_arn, format=json.dumps(ACCESS_LOG, separators=(",", ":"))
        ),
        default_route_settings=api.CfnStage.RouteSettingsProperty(
            detailed_metrics_enabled=True, throttling_rate_limit=rate_per_s, throttling_burst_limit=burst
        ),
    )
