"""The console's address: an HTTP API of operators, apart from that of callers."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as api
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_iam as iam
from tidegate.web.console.paths import DRAFTS, PAGE, ROLLBACK

from infra.contract import PLAYGROUND_PATHS
from infra.setting_groups import Console, JwtAuthorizer
from infra.stacks.functions import FunctionsStack
from infra.stacks.http_apis import authorizer_of, default_stage, scopes_of
from infra.stacks.parts import Stage, explain, log_group, statement
from infra.stacks.storage import StorageStack

RATE_PER_S = 20
BURST = 60
"""Limits over all operators: a page asks for some twenty files, and then once in some seconds."""


def add_console(
    scope: cdk.Stack, stage: Stage, functions: FunctionsStack, storage: StorageStack, settings: Console
) -> None:
    """Add the address, and what lets operators use it."""
    http_api = api.HttpApi(
        scope,
        "ConsoleApi",
        api_name=stage.called("console"),
        description="Tidegate: the operators' console",
        create_default_stage=False,
        default_authorizer=authorizer_of(settings.authorizer, "ConsoleJwt"),
    )
    to = {
        name: integrations.HttpLambdaIntegration(
            f"Console{name.title()}", functions.http[name], payload_format_version=api.PayloadFormatVersion.VERSION_2_0
        )
        for name in ("console", "gateway")
    }
    scopes = scopes_of(settings.authorizer)
    posts = (DRAFTS, ROLLBACK) if settings.writes else (DRAFTS,)
    for name, path, method in (
        ("console", "/v1/{path+}", api.HttpMethod.GET),
        *(("console", path, api.HttpMethod.POST) for path in posts),
        *(("gateway", path, api.HttpMethod[method]) for path, method in PLAYGROUND_PATHS),
    ):
        http_api.add_routes(path=path, methods=[method], integration=to[name], authorization_scopes=scopes)
    for path in (PAGE, f"{PAGE}/{{path+}}"):
        for route in http_api.add_routes(
            path=path,
            methods=[api.HttpMethod.GET],
            integration=to["console"],
            authorizer=api.HttpNoneAuthorizer(),
        ):
            reason = "The page's files are this project's own: a browser opens them before it has a token."
            explain(route, nag={"AwsSolutions-APIG4": reason}, checkov={"CKV_AWS_309": reason})
    log = log_group(scope, "ConsoleAccessLogs", stage, f"/aws/vendedlogs/tidegate/{stage.name}/console", storage.key)
    default_stage(scope, "ConsoleStage", http_api, log, RATE_PER_S, BURST)
    cdk.CfnOutput(scope, "ConsoleUrl", value=f"{http_api.api_endpoint}{PAGE}", description="The console")
    if not isinstance(settings.authorizer, JwtAuthorizer):
        _operators(scope, stage, http_api)


def _operators(scope: cdk.Stack, stage: Stage, http_api: api.HttpApi) -> None:
    routes = f"arn:{scope.partition}:execute-api:{scope.region}:{scope.account}:{http_api.api_id}/*"
    policy = iam.ManagedPolicy(
        scope,
        "ConsoleOperators",
        managed_policy_name=stage.called("operators"),
        description="Attach it to those who may use the console",
        statements=[statement(["execute-api:Invoke"], [routes])],
    )
    cdk.CfnOutput(scope, "OperatorsPolicyArn", value=policy.managed_policy_arn, description="Attach it to operators")
    reference = scope.resolve(http_api.api_id)["Ref"]
    every_route = f"arn:<AWS::Partition>:execute-api:<AWS::Region>:<AWS::AccountId>:<{reference}>/*"
    explain(policy, nag={f"AwsSolutions-IAM5[Resource::{every_route}]": "An operator may use every route."})
