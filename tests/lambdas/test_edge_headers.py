"""CloudFront's headers are trusted from CloudFront alone, and no request bypasses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tidegate.aws.edge_headers import BypassError, EdgeKeys, with_trusted_headers
from tidegate.rules import compile_directory

from tests.lambdas.conftest import Deployment, Starter, ask
from tests.lambdas.test_gateway import PAIR
from tests.web.conftest import HERE as WEB

KEY = "the-key-of-cloudfront-0123456789"
NETHERLANDS = {"cloudfront-viewer-country": "NL"}


@pytest.fixture
def by_country(deployment: Deployment, tmp_path: Path) -> Deployment:
    """A stage whose rule `pinned` goes by the country that CloudFront tells."""
    rules = tmp_path / "rules"
    shutil.copytree(WEB / "rules", rules)
    file = rules / "objectives" / "adding.yaml"
    file.write_text(file.read_text().replace("header:X-Country", "header:CloudFront-Viewer-Country"))
    deployment.publish(compile_directory(rules))
    return deployment


def test_a_callers_own_cloudfront_header_decides_nothing(
    by_country: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    gateway = start("gateway", by_country.variables(shards))
    for headers in ({}, NETHERLANDS, {**NETHERLANDS, "tidegate-edge-key": KEY}):
        answer = ask(gateway, "/v2/models/adding/infer", PAIR, headers)
        assert (answer.status, answer.headers["tidegate-rule"]) == (200, "newest"), headers


def test_cloudfronts_header_decides_where_it_is_in_front_and_nothing_gets_past_it(
    by_country: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    gateway = start("gateway", by_country.variables(shards) | {"TIDEGATE_EDGE_KEY": KEY})
    answer = ask(gateway, "/v2/models/adding/infer", PAIR, {**NETHERLANDS, "tidegate-edge-key": KEY})
    assert (answer.status, answer.headers["tidegate-rule"]) == (200, "pinned")
    wrong = ("another", f"{KEY},{KEY}", "\ud800", "ключ")
    for headers in (NETHERLANDS, *({"tidegate-edge-key": text} for text in wrong)):
        refused = ask(gateway, "/v2/models/adding/infer", PAIR, headers)
        assert refused.status == 403
        assert refused.json == {"error": "this address takes requests from CloudFront alone"}
    problem = ask(gateway, "/v1/objectives", method="GET")
    assert (problem.status, problem.json["type"]) == (403, "urn:tidegate:problem:forbidden")
    assert KEY not in gateway.log


def test_both_keys_are_accepted_while_the_key_is_rotated(
    by_country: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    before = "the-key-of-before-0123456789"
    variables = {"TIDEGATE_EDGE_KEY": KEY, "TIDEGATE_EDGE_KEY_BEFORE": before}
    gateway = start("gateway", by_country.variables(shards) | variables)
    for key in (KEY, before):
        answer = ask(gateway, "/v2/models/adding/infer", PAIR, {**NETHERLANDS, "tidegate-edge-key": key})
        assert (answer.status, answer.headers["tidegate-rule"]) == (200, "pinned")
    assert ask(gateway, "/v2/models/adding/infer", PAIR, {"tidegate-edge-key": "another"}).status == 403
    assert KEY not in gateway.log
    assert before not in gateway.log


def test_both_ways_are_answered_while_dns_moves_and_only_cloudfronts_is_trusted(
    by_country: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    variables = {"TIDEGATE_EDGE_KEY": KEY, "TIDEGATE_EDGE_KEY_ENFORCED": "false"}
    gateway = start("gateway", by_country.variables(shards) | variables)
    for headers, rule in (
        ({**NETHERLANDS, "tidegate-edge-key": KEY}, "pinned"),
        (NETHERLANDS, "newest"),
        ({**NETHERLANDS, "tidegate-edge-key": "another"}, "newest"),
        ({}, "newest"),
    ):
        answer = ask(gateway, "/v2/models/adding/infer", PAIR, headers)
        assert (answer.status, answer.headers["tidegate-rule"]) == (200, rule), headers


@pytest.mark.parametrize("event", [None, 3, "text", [], {}, {"headers": None}, {"headers": 3}])
def test_what_is_no_event_is_left_to_who_reads_events(event: object) -> None:
    assert with_trusted_headers(event, None) is event
    with pytest.raises(BypassError):
        with_trusted_headers(event, EdgeKeys((KEY,)))


def test_the_case_of_a_name_hides_nothing() -> None:
    event = {"headers": {"CloudFront-Viewer-Country": "NL", "Tidegate-Edge-Key": KEY, "X-A": "b"}}
    assert with_trusted_headers(event, None)["headers"] == {"X-A": "b"}
    assert with_trusted_headers(event, EdgeKeys((KEY,)))["headers"] == {"CloudFront-Viewer-Country": "NL", "X-A": "b"}
