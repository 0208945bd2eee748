"""CloudFront in front of the HTTP API: a firewall that an HTTP API cannot have, and the caller's country."""

from __future__ import annotations

from aws_cdk import aws_cloudfront as cloudfront
from constructs import Construct

from infra.setting_groups import CloudFront
from infra.stacks.parts import explain

NO_CACHE = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
"""AWS's cache policy CachingDisabled: no decision is cached."""

BELIEVED = ("CloudFront-Viewer-Country",)
"""CloudFront's headers about a caller, which may carry attributes of a context."""


class Distribution(Construct):
    """The distribution of one name, whose origin takes requests with `key` alone.

    The Host header goes on to the origin, which has the same name: signatures of no request are needed to hold, and callers
    see one address.
    """

    def __init__(self, scope: Construct, *, name: str, origin: str, key: str, settings: CloudFront) -> None:
        super().__init__(scope, "CloudFront")
        forwarded = self._forwarded(name)
        of = cloudfront.CfnDistribution
        distribution = of(
            self,
            "Distribution",
            distribution_config=of.DistributionConfigProperty(
                enabled=True,
                comment=name,
                aliases=[name],
                http_version="http2and3",
                ipv6_enabled=True,
                web_acl_id=settings.web_acl_arn,
                viewer_certificate=of.ViewerCertificateProperty(
                    acm_certificate_arn=settings.certificate_arn,
                    minimum_protocol_version="TLSv1.2_2021",
                    ssl_support_method="sni-only",
                ),
                origins=[
                    of.OriginProperty(
                        id="api",
                        domain_name=origin,
                        custom_origin_config=of.CustomOriginConfigProperty(
                            origin_protocol_policy="https-only", origin_ssl_protocols=["TLSv1.2"]
                        ),
                        origin_custom_headers=[
                            of.OriginCustomHeaderProperty(header_name="Tidegate-Edge-Key", header_value=key)
                        ],
                    )
                ],
                default_cache_behavior=of.DefaultCacheBehaviorProperty(
                    target_origin_id="api",
                    viewer_protocol_policy="https-only",
                    allowed_methods=["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"],
                    cache_policy_id=NO_CACHE,
                    origin_request_policy_id=forwarded.ref,
                    compress=False,
                ),
            ),
        )
        self.domain_name = distribution.attr_domain_name
        elsewhere = "The API writes the access log, and the web ACL's owner that of the firewall."
        everywhere = "Callers may be anywhere; where they may not, the web ACL says so."
        explain(
            distribution,
            nag={"AwsSolutions-CFR1": everywhere, "AwsSolutions-CFR3": elsewhere},
            checkov={
                "CKV_AWS_86": elsewhere,
                "CKV_AWS_374": everywhere,
                "CKV_AWS_305": "It serves an API, which has no root object.",
                "CKV_AWS_310": "There is one API; its functions run in every zone of the region.",
                "CKV2_AWS_32": "Answers are JSON and tensors for programs, which know no security headers of browsers.",
                "CKV2_AWS_47": "Which rules the web ACL has is its owner's choice; nothing here is written in Java.",
            },
        )

    def _forwarded(self, name: str) -> cloudfront.CfnOriginRequestPolicy:
        of = cloudfront.CfnOriginRequestPolicy
        return of(
            self,
            "Forwarded",
            origin_request_policy_config=of.OriginRequestPolicyConfigProperty(
                name=name.replace(".", "-"),
                headers_config=of.HeadersConfigProperty(
                    header_behavior="allViewerAndWhitelistCloudFront", headers=list(BELIEVED)
                ),
                cookies_config=of.CookiesConfigProperty(cookie_behavior="none"),
                query_strings_config=of.QueryStringsConfigProperty(query_string_behavior="all"),
            ),
        )
