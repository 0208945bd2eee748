"""The entry points for requests: an HTTP API with an authorizer on every route, a Function URL with IAM, or both."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as api
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.setting_groups import Domain, JwtAuthorizer
from infra.stacks.console import add_console
from infra.stacks.distribution import Distribution
from infra.stacks.functions import FunctionsStack
from infra.stacks.http_apis import authorizer_of, default_stage, scopes_of
from infra.stacks.parts import Stage, explain, log_group, statement
from infra.stacks.storage import StorageStack

ROUTES = (
    ("gateway", "/", (api.HttpMethod.GET, api.HttpMethod.HEAD)),
    ("gateway", "/v2", (api.HttpMethod.GET,)),
    ("gateway", "/v2/{path+}", (api.HttpMethod.GET, api.HttpMethod.POST)),
    ("gateway", "/v1/{path+}", (api.HttpMethod.GET, api.HttpMethod.POST)),
    ("gateway", "/openapi.json", (api.HttpMethod.GET,)),
    ("resolve", "/v1/objectives/{objective}/resolve", (api.HttpMethod.POST,)),
    ("resolve", "/ofrep/{path+}", (api.HttpMethod.POST,)),
)
"""(function, path, methods); the most specific route wins."""


class EdgeStack(cdk.Stack):
    """The addresses that callers use. `api_id` is None without an HTTP API."""

    def __init__(
        self, scope: Construct, construct_id: str, *, stage: Stage, functions: FunctionsStack, storage: StorageStack
    ) -> None:
        super().__init__(
            scope, construct_id, stack_name=stage.called("edge"), description="Tidegate: where requests come in"
        )
        self.stage, self._functions, self._storage = stage, functions, storage
        invoke: list[iam.PolicyStatement] = []
        self.api_id: str | None = None
        if stage.settings.entry_point in ("http_api", "both"):
            http_api = self._http_api()
            self.api_id = http_api.api_id
            if not isinstance(stage.settings.authorizer, JwtAuthorizer):
                routes = f"arn:{self.partition}:execute-api:{self.region}:{self.account}:{http_api.api_id}/*"
                invoke.append(statement(["execute-api:Invoke"], [routes]))
        if stage.settings.entry_point in ("function_url", "both"):
            invoke += self._function_url()
        if invoke:
            self._callers(invoke)
        if stage.settings.console is not None:
            add_console(self, stage, functions, storage, stage.settings.console)

    def _http_api(self) -> api.HttpApi:
        domain = self.stage.settings.domain
        http_api = api.HttpApi(
            self,
            "Api",
            api_name=self.stage.called("api"),
            description="Tidegate: /v2 (Open Inference Protocol) and /v1",
            create_default_stage=False,
            disable_execute_api_endpoint=domain is not None and not domain.default_address,
            default_authorizer=authorizer_of(self.stage.settings.authorizer, "Jwt"),
        )
        whole = {name: self._integration(name) for name in ("gateway", "resolve")}
        scopes = scopes_of(self.stage.settings.authorizer)
        for name, path, methods in ROUTES:
            http_api.add_routes(path=path, methods=list(methods), integration=whole[name], authorization_scopes=scopes)
        logs = log_group(
            self, "AccessLogs", self.stage, f"/aws/vendedlogs/tidegate/{self.stage.name}/api", self._storage.key
        )
        throttling = self.stage.settings.throttling
        stage = default_stage(self, "Stage", http_api, logs, throttling.rate_per_s, throttling.burst)
        if domain is not None:
            self._domain(domain, http_api, stage)
        else:
            cdk.CfnOutput(self, "ApiUrl", value=http_api.api_endpoint, description="The HTTP API")
        return http_api

    def _integration(self, name: str) -> integrations.HttpLambdaIntegration:
        return integrations.HttpLambdaIntegration(
            name.title(),
            self._functions.http[name],
            payload_format_version=api.PayloadFormatVersion.VERSION_2_0,
        )

    def _domain(self, domain: Domain, http_api: api.HttpApi, stage: api.CfnStage) -> None:
        name = api.DomainName(
            self,
            "Domain",
            domain_name=domain.name,
            certificate=acm.Certificate.from_certificate_arn(self, "Certificate", domain.certificate_arn),
            security_policy=api.SecurityPolicy.TLS_1_2,
        )
        mapping = api.CfnApiMapping(
            self, "Mapping", api_id=http_api.api_id, domain_name=name.name, stage=stage.stage_name
        )
        mapping.add_resource_dependency(stage)
        cdk.CfnOutput(self, "ApiUrl", value=f"https://{domain.name}", description="The HTTP API")
        target = name.regional_domain_name
        front = self.stage.settings.cloudfront
        if front is not None:
            what = f"Where {domain.name} points before CloudFront is in front, and after"
            cdk.CfnOutput(self, "ApiTarget", value=target, description=what)
            key = self._storage.edge_key_value(front.key_versions[0])
            distribution = Distribution(self, name=domain.name, origin=target, key=key, settings=front)
            target = distribution.domain_name
        cdk.CfnOutput(
            self,
            "DomainTarget",
            value=target,
            description=f"Point {domain.name} here (alias or CNAME)",
        )

    def _function_url(self) -> list[iam.PolicyStatement]:
        gateway = self._functions.http["gateway"]
        url = lambda_.FunctionUrl(
            self,
            "Url",
            function=gateway,
            auth_type=lambda_.FunctionUrlAuthType.AWS_IAM,
            invoke_mode=lambda_.InvokeMode.BUFFERED,
        )
        cdk.CfnOutput(self, "FunctionUrl", value=url.url, description="The gateway's Function URL")
        arn = gateway.function_arn
        return [
            statement(["lambda:InvokeFunctionUrl"], [arn], {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}}),
            # A URL needs both; the condition refuses any other invocation.
            statement(["lambda:InvokeFunction"], [arn], {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
        ]

    def _callers(self, statements: list[iam.PolicyStatement]) -> None:
        policy = iam.ManagedPolicy(
            self,
            "Callers",
            managed_policy_name=self.stage.called("callers"),
            description="Attach it to whoever may call Tidegate; callers.yaml says what each of them may use",
            statements=statements,
        )
        cdk.CfnOutput(self, "CallersPolicyArn", value=policy.managed_policy_arn, description="Attach it to callers")
        if self.api_id is not None:
            api_ref = cdk.Stack.of(self).resolve(self.api_id)["Ref"]
            every_route = f"arn:<AWS::Partition>:execute-api:<AWS::Region>:<AWS::AccountId>:<{api_ref}>/*"
            reason = "A caller may use every route; callers.yaml says which objectives."
            explain(policy, nag={f"AwsSolutions-IAM5[Resource::{every_route}]": reason})
