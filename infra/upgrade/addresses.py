"""Which addresses of a stage answer callers. The functions are updated before the addresses, and callers and DNS move after both,
so one address has to answer before, between and after the two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.upgrade.deployment import Deployment

LAST = "Edge"
"""The stack that has the addresses; it is deployed after the functions."""

CONSOLE = "Console"
"""How the logical ids of the console's address begin."""

HOW = (
    "deploy it in two steps, and move callers and DNS between them; domain.default_address, cloudfront.enforced: false, "
    "entry_point: both and a second one of cloudfront.key_versions keep the old address"
)


def lost_addresses(deployed: Deployment, new: Deployment, chosen: tuple[str, ...]) -> Iterator[str]:
    """Return a warning if no address would answer before and during a deployment of the stacks `chosen`."""
    before = _answering(deployed)
    between = _answering(deployed.overlaid(new, tuple(each for each in chosen if each != LAST)))
    after = _answering(deployed.overlaid(new, chosen))
    if before and not before & between & after:
        yield f"callers would be left without an address: none of those that answer now ({', '.join(sorted(before))}) would do so throughout; {HOW}"


def _answering(deployment: Deployment) -> set[str]:
    return set(_addresses(deployment))


def _addresses(deployment: Deployment) -> Iterator[str]:
    keys, is_enforced = _keys(deployment)
    for name, body in deployment.templates.get(LAST, {}).get("Resources", {}).items():
        if name.startswith(CONSOLE):
            # It answers operators, whom the page tells its address.
            continue
        properties = body.get("Properties", {})
        match body["Type"]:
            case "AWS::CloudFront::Distribution":
                config = properties["DistributionConfig"]
                headers = [each for origin in config["Origins"] for each in origin.get("OriginCustomHeaders", ())]
                if not is_enforced or any(json.dumps(each["HeaderValue"]) in keys for each in headers):
                    yield from (f"{name} at CloudFront" for name in config.get("Aliases", ()))
            case "AWS::ApiGatewayV2::Api" if not is_enforced and not properties.get("DisableExecuteApiEndpoint"):
                yield "the API's default address"
            case "AWS::ApiGatewayV2::DomainName" if not is_enforced:
                yield f"{properties['DomainName']} at the API"
            case "AWS::Lambda::Url" if not is_enforced:
                yield "the Function URL"


def _keys(deployment: Deployment) -> tuple[set[str], bool]:
    """Return the CloudFront keys that the functions accept, and whether they enforce them."""
    for body in deployment.templates.get("Functions", {}).get("Resources", {}).values():
        variables: Mapping[str, Any] = body.get("Properties", {}).get("Environment", {}).get("Variables", {})
        if body["Type"] == "AWS::Lambda::Function" and "TIDEGATE_EDGE_KEY" in variables:
            names = ("TIDEGATE_EDGE_KEY", "TIDEGATE_EDGE_KEY_BEFORE")
            keys = {json.dumps(variables[name]) for name in names if name in variables}
            return keys, variables.get("TIDEGATE_EDGE_KEY_ENFORCED") != "false"
    return set(), False
