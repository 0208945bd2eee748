"""The gateway's function under Lambda's own runtime client, in front of a real Triton."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from tidegate.aws.telemetry import MOST_DIMENSIONS
from tidegate.rules import compile_directory

from tests.lambdas.conftest import Deployment, Starter, ask
from tests.support.lambda_runtime import Environment
from tests.support.processes import refusing_port
from tests.web.conftest import AS_OPERATOR, Host
from tests.web.conftest import HERE as WEB

RULES = compile_directory(WEB / "rules")
PAIR = {
    "inputs": [
        {"name": name, "shape": [1, 16], "datatype": "INT32", "data": list(range(16))} for name in ("INPUT0", "INPUT1")
    ]
}


def binary_pair() -> tuple[bytes, dict[str, str]]:
    """The same request with its tensors in binary, and the answer's asked for in binary."""
    tensors = np.arange(16, dtype=np.int32).tobytes() * 2
    head = {
        "inputs": [
            {"name": name, "shape": [1, 16], "datatype": "INT32", "parameters": {"binary_data_size": 64}}
            for name in ("INPUT0", "INPUT1")
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    return text + tensors, {
        "inference-header-content-length": str(len(text)),
        "content-type": "application/octet-stream",
    }


@pytest.mark.parametrize("kind", ["http_api", "function_url"])
def test_an_event_is_routed_to_the_real_model(
    deployment: Deployment, start: Starter, shards: dict[str, int], kind: str
) -> None:
    revision = deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards))
    answer = ask(gateway, "/v2/models/adding/infer", PAIR, {"x-country": "NL"}, kind=kind)
    assert answer.status == 200, answer.body
    outputs = {tensor["name"]: tensor["data"] for tensor in answer.json["outputs"]}
    assert outputs["OUTPUT0"] == [2 * value for value in range(16)]
    assert answer.headers["tidegate-rule"] == "pinned"
    assert answer.headers["tidegate-revision"] == revision
    assert "triton;dur=" in answer.headers["server-timing"]


def test_binary_bodies_travel_both_ways(deployment: Deployment, start: Starter, shards: dict[str, int]) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards))
    body, headers = binary_pair()
    answer = ask(gateway, "/v2/models/adding/infer", body, {**headers, "accept-encoding": "identity"})
    assert answer.status == 200, answer.body
    assert answer.is_base64
    length = int(answer.headers["inference-header-content-length"])
    assert struct.unpack_from("<16i", answer.body, length) == tuple(2 * value for value in range(16))
    packed = gzip.compress(body)
    answer = ask(gateway, "/v2/models/adding/infer", packed, {**headers, "content-encoding": "gzip"})
    assert answer.status == 200, "a compressed body goes to Triton as it came"


def test_v1_answers_plain_json(deployment: Deployment, start: Starter, shards: dict[str, int]) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards))
    inputs = {"INPUT0": [list(range(16))], "INPUT1": [[1] * 16]}
    answer = ask(gateway, "/v1/objectives/adding/infer", {"context": {}, "inputs": inputs}, query="explain=true")
    assert answer.status == 200, answer.body
    assert answer.json["outputs"]["OUTPUT0"] == [[value + 1 for value in range(16)]]
    assert answer.json["explanation"]["rules"]
    fleet = ask(gateway, "/v1/fleet", method="GET", headers=AS_OPERATOR).json
    assert fleet["source"]["state"] == "current"
    assert fleet["source"]["age_s"] >= 0


def test_rules_that_become_live_are_picked_up_and_a_store_that_is_down_stops_nothing(
    deployment: Deployment, start: Starter, shards: dict[str, int], tmp_path: Path
) -> None:
    first = deployment.publish(RULES)
    gateway = start("gateway", {**deployment.variables(shards), "TIDEGATE_POLL_INTERVAL_S": "0.1"})
    assert ask(gateway, "/v2/models/adding/infer", PAIR).headers["tidegate-revision"] == first
    changed = compile_with(tmp_path, "adding", "pair_sum/2")
    second = deployment.publish(changed)
    assert eventually_revision(gateway, second) == second
    deployment.aws.s3().delete_object(Bucket=deployment.aws.bucket, Key="live/pointer.json")
    for _ in range(3):
        time.sleep(0.12)
        answer = ask(gateway, "/v2/models/adding/infer", PAIR)
        assert (answer.status, answer.headers["tidegate-revision"]) == (200, second)


def test_a_frozen_process_whose_connections_died_answers_the_next_request(
    deployment: Deployment, start: Starter, cutting: Any, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    proxy = cutting(shards["main"])
    gateway = start("gateway", deployment.variables({"main": proxy.port, "spare": proxy.port}))
    for _ in range(3):
        assert ask(gateway, "/v2/models/adding/infer", PAIR).status == 200
        gateway.freeze()
        assert proxy.cut() > 0, "a connection was kept"
        time.sleep(0.05)
        gateway.thaw()
    assert ask(gateway, "/v2/models/adding/infer", PAIR).status == 200


@pytest.mark.parametrize("function", ["gateway", "resolve"])
def test_a_thawed_function_decides_by_what_is_live_now(
    deployment: Deployment, start: Starter, shards: dict[str, int], tmp_path: Path, function: str
) -> None:
    bundles = [RULES, compile_with(tmp_path, "adding", "pair_sum/2")]
    deployment.publish(bundles[0])
    environment = start(
        function, {**deployment.variables(shards), "TIDEGATE_POLL_INTERVAL_S": "0.2", "TIDEGATE_FRESH_WAIT_MS": "10000"}
    )
    path = "/v1/objectives/adding/resolve"
    frozen_s = []
    for number in range(1, 4):
        assert ask(environment, path, {"context": {}}).status == 200
        environment.freeze()
        began = time.monotonic()
        revision = deployment.publish(bundles[number % 2])
        time.sleep(2)
        frozen_s.append(time.monotonic() - began)
        environment.thaw()
        answer = ask(environment, path, {"context": {}})
        assert (answer.status, answer.json["revision"]) == (200, revision), "the first request already"
    ages = [line["BundleAgeSeconds"][0] for line in metric_lines(environment) if "BundleAgeSeconds" in line]
    assert len(ages) == 6
    thawed = zip(ages[1::2], frozen_s, strict=True)
    assert all(age_s < each_s for age_s, each_s in thawed), "nothing that the alarm on old rules would see"


def test_a_thawed_function_serves_what_it_knows_while_the_store_hangs(
    deployment: Deployment, start: Starter, shards: dict[str, int], cutting: Any
) -> None:
    revision = deployment.publish(RULES)
    proxy = cutting(urlsplit(deployment.aws.url).port or 0)
    variables = deployment.variables(shards) | {"TIDEGATE_AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
    wait = {"TIDEGATE_POLL_INTERVAL_S": "0.05", "TIDEGATE_FRESH_WAIT_MS": "1500"}
    environment = start("resolve", variables | wait)
    ask(environment, "/v1/objectives/adding/resolve", {"context": {}})
    proxy.hang()
    time.sleep(0.7)
    took_s = []
    for _ in range(5):
        began = time.monotonic()
        assert ask(environment, "/v1/objectives/adding/resolve", {"context": {}}).json["revision"] == revision
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 1.5 <= max(took_s), "one of them waited, and not each of the five"


def test_the_time_that_the_function_has_left_is_the_deadline(
    deployment: Deployment, start: Starter, silent_server: int, tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(WEB / "rules", rules)
    file = rules / "objectives" / "adding.yaml"
    file.write_text(file.read_text().replace("timeout_ms: 5000", "timeout_ms: 120000"))
    deployment.publish(compile_directory(rules))
    gateway = start("gateway", deployment.variables({"main": silent_server, "spare": silent_server}))
    ask(gateway, "/v2/health/live", method="GET")
    before = time.monotonic()
    answer = ask(gateway, "/v2/models/adding/infer", PAIR, remaining_ms=600)
    assert answer.status == 504
    assert set(answer.json) == {"error"}
    assert time.monotonic() - before < 100, "not the objective's own 120 s"


def test_what_a_function_cannot_carry_is_refused_with_what_to_do(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards))
    too_large = ask(gateway, "/v2/models/adding/infer", b"\xff" * 4_600_000)
    assert too_large.status == 413
    assert "resolve" in too_large.json["error"]
    numbers = np.zeros(1_150_000, dtype=np.float32).tobytes()
    head = {
        "inputs": [
            {"name": "X", "shape": [1, 1_150_000], "datatype": "FP32", "parameters": {"binary_data_size": len(numbers)}}
        ]
    }
    text = json.dumps(head).encode()
    answer = ask(
        gateway, "/v2/models/echoing/infer", text + numbers, {"inference-header-content-length": str(len(text))}
    )
    assert answer.status == 413, "the answer, in decimals, is larger than the request"
    assert "resolve" in answer.json["error"]


def test_errors_have_the_form_of_their_door(deployment: Deployment, start: Starter, shards: dict[str, int]) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards))
    unknown = ask(gateway, "/v2/models/nothing/infer", PAIR)
    assert (unknown.status, set(unknown.json)) == (404, {"error"})
    unknown = ask(gateway, "/v1/objectives/nothing/infer", {"context": {}, "inputs": {}})
    assert (unknown.status, unknown.headers["content-type"]) == (404, "application/problem+json")
    strange = gateway.invoke({"Records": [{"eventSource": "aws:s3"}]})
    assert strange["statusCode"] == 400
    assert "not an HTTP request" in json.loads(strange["body"])["detail"]


def test_without_rules_the_answer_says_so(deployment: Deployment, start: Starter, shards: dict[str, int]) -> None:
    gateway = start("gateway", deployment.variables(shards))
    answer = ask(gateway, "/v2/models/adding/infer", PAIR)
    assert answer.status == 503
    assert "no rules yet" in answer.json["error"]
    assert ask(gateway, "/v2/health/live", method="GET").status == 200


def test_the_bundle_that_came_with_the_code_serves_at_once(
    deployment: Deployment, start: Starter, shards: dict[str, int], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(RULES)
    gateway = start("gateway", {**deployment.variables(shards), "TIDEGATE_BUNDLE_FILE": str(bundle)})
    assert ask(gateway, "/v2/models/adding/infer", PAIR).status == 200


def test_logs_and_metrics_are_structured_and_hold_no_value_of_a_context(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables({**shards, "main": refusing_port()}))
    context = {"member_id": "a-secret-member", "device": "mobile"}
    answer = ask(gateway, "/v2/models/guarded/infer", b"{}", {"tidegate-context": json.dumps(context)})
    assert answer.status >= 400
    assert "a-secret-member" not in gateway.log
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    metrics = [line for line in lines if "_aws" in line]
    by_function = next(line for line in metrics if "BundleAgeSeconds" in line)
    assert (by_function["service"], by_function["Requests"]) == ("gateway", [1.0])
    by_objective = next(line for line in metrics if "Objective" in line)
    assert (by_objective["Objective"], by_objective["Variant"]) == ("guarded", "none")
    assert {line["correlation_id"] for line in lines if "correlation_id" in line} <= {"UmF3UmVxdWVzdElk"}


def metric_lines(environment: Environment) -> list[dict[str, Any]]:
    """Every line of metrics, as CloudWatch reads it."""
    return [json.loads(line) for line in environment.log.splitlines() if line.startswith('{"_aws"')]


def test_an_answer_tells_its_times_and_a_fallback_its_breaker(
    deployment: Deployment, start: Starter, shards: dict[str, int], tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    (rules / "objectives").mkdir(parents=True)
    (rules / "fleet.yaml").write_text(
        "shards: {main: {}, spare: {}}\nmodels: {echo: {shards: [main]}, pair_sum: {shards: [spare]}}\n"
    )
    (rules / "objectives" / "guarded.yaml").write_text(
        "objective: guarded\nsummary: Has a fallback.\nowner: tests\ncontext: {member_id: {type: string}}\n"
        "fallback: [pair_sum]\nrules: [{id: only, serve: echo}]\n"
    )
    deployment.publish(compile_directory(rules))
    variables = deployment.variables({**shards, "main": refusing_port()})
    gateway = start("gateway", {**variables, "TIDEGATE_BREAKER_FAILURES": "1", "TIDEGATE_BREAKER_OPEN_MS": "600000"})
    answer = ask(gateway, "/v2/models/guarded/infer", PAIR)
    assert (answer.status, answer.headers["tidegate-model"]) == (200, "pair_sum"), answer.body
    (by_function,) = [line for line in metric_lines(gateway) if "BundleAgeSeconds" in line]
    assert (by_function["Fallbacks"], by_function["OpenBreakers"], by_function["ColdStarts"]) == ([1.0], [1.0], [1.0])
    assert by_function["DispatchTime"][0] >= by_function["TritonTime"][0] > 0
    assert by_function["DecideTime"][0] > 0
    (by_objective,) = [line for line in metric_lines(gateway) if "Objective" in line]
    assert (by_objective["Objective"], by_objective["Fallbacks"]) == ("guarded", [1.0])
    assert by_objective["FailedAttempts"][0] >= 1
    units = {each["Name"]: each["Unit"] for each in by_objective["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert units["DecideTime"] == units["DispatchTime"] == units["TritonTime"] == "Milliseconds"


def test_metrics_name_so_many_objectives_and_no_more(deployment: Deployment, start: Starter, tmp_path: Path) -> None:
    rules = tmp_path / "many"
    (rules / "objectives").mkdir(parents=True)
    (rules / "fleet.yaml").write_text("shards: {main: {}}\nmodels: {pair_sum: {shards: [main]}}\n")
    names = [f"objective_{number}" for number in range(MOST_DIMENSIONS + 5)]
    for name in names:
        text = f"objective: {name}\nsummary: One of many.\nowner: tests\ncontext: {{}}\n"
        (rules / "objectives" / f"{name}.yaml").write_text(f"{text}rules: [{{id: only, serve: pair_sum}}]\n")
    deployment.publish(compile_directory(rules))
    # No server is needed: an inference that fails was decided, and counts.
    gateway = start("gateway", deployment.variables({"main": refusing_port()}))
    for name in names:
        assert ask(gateway, f"/v2/models/{name}/infer", PAIR).status == 503
    named = {line["Objective"] for line in metric_lines(gateway) if "Objective" in line}
    assert named == {*names[:MOST_DIMENSIONS], "other"}


def compile_with(folder: Path, objective: str, target: str) -> bytes:
    """The rules with one rule that serves one target."""
    rules = folder / "rules"
    shutil.copytree(WEB / "rules", rules)
    file = rules / "objectives" / f"{objective}.yaml"
    head = file.read_text().partition("rules:")[0]
    file.write_text(f"{head}rules: [{{id: only, serve: {target}}}]\n")
    return compile_directory(rules)


def eventually_revision(gateway: Any, revision: str) -> str:
    """Ask until the answer comes from a revision, or for a while."""
    found = ""
    deadline_s = time.monotonic() + 120
    while found != revision and time.monotonic() < deadline_s:
        time.sleep(0.12)
        found = ask(gateway, "/v2/models/adding/infer", PAIR).headers["tidegate-revision"]
    return found


def test_a_caller_is_who_the_authorizer_says(
    deployment: Deployment, start: Starter, shards: dict[str, int], tmp_path: Path
) -> None:
    rules = tmp_path / "granted"
    shutil.copytree(WEB / "rules", rules)
    (rules / "callers.yaml").write_text(
        "callers:\n"
        "  home-screen: {objectives: [adding], rate_per_s: 0.01, burst: 2, marks: [replay]}\n"
        "  arn:aws:sts::123456789012:assumed-role/home-screen: {objectives: [echoing]}\n"
    )
    deployment.publish(compile_directory(rules))
    gateway = start("gateway", deployment.variables(shards))
    claimed = {"tidegate-caller": "somebody-else"}
    assert ask(gateway, "/v2/models/adding/infer", PAIR, claimed).status == 200, "the header is not looked at"
    refused = ask(gateway, "/v2/models/echoing/infer", PAIR)
    assert refused.status == 403
    assert "'home-screen' may not use 'echoing'" in refused.json["error"]
    refused = ask(gateway, "/v2/models/adding/infer", PAIR, kind="function_url")
    assert "assumed-role/home-screen' may not use 'adding'" in refused.json["error"]
    assert ask(gateway, "/v2/models/adding/infer", PAIR, {"tidegate-traffic": "replay"}).status == 200
    limited = ask(gateway, "/v2/models/adding/infer", PAIR)
    assert (limited.status, limited.headers["ratelimit-policy"]) == (429, '"caller-rate";q=1;w=100')
    lines = [json.loads(line) for line in gateway.log.splitlines() if '"outcome"' in line]
    assert [(line["outcome"], line.get("caller"), line.get("traffic"), line["status"]) for line in lines] == [
        ("answered", "home-screen", "real", 200),
        ("refused", None, None, 403),
        ("refused", None, None, 403),
        ("answered", "home-screen", "replay", 200),
        ("refused", "home-screen", "real", 429),
    ]
    assert all(line["service"] == "gateway" and line["correlation_id"] for line in lines)
    origins = [(line["Caller"], line["Traffic"]) for line in metric_lines(gateway) if "Caller" in line]
    assert origins == [("home-screen", "real"), ("home-screen", "replay")]
    assert sum(line["Limited"][0] for line in metric_lines(gateway) if "Limited" in line) == 1


@pytest.mark.parametrize("kind", ["http_api", "function_url"])
def test_the_resolver_decides_and_reaches_no_server(deployment: Deployment, start: Starter, kind: str) -> None:
    deployment.publish(RULES)
    resolver = start("resolve", deployment.variables({"main": refusing_port()}))
    answer = ask(resolver, "/v1/objectives/adding/resolve", {"context": {"country": "NL"}}, kind=kind)
    assert answer.status == 200, answer.body
    assert answer.json["decision"]["rule"] == "pinned"
    assert answer.json["endpoints"]
    assert answer.json["vary"] == ["country"]
    flag = ask(resolver, "/ofrep/v1/evaluate/flags/adding", {"context": {"country": "NL"}}, kind=kind)
    assert (flag.status, flag.json["metadata"]["rule"]) == (200, "pinned"), flag.body
    flags = ask(resolver, "/ofrep/v1/evaluate/flags", {"context": {"country": "NL"}}, kind=kind)
    assert flag.json in flags.json["flags"]
    context = {"tidegate-context": '{"country": "NL"}'}
    authorized = ask(resolver, "/authorize/v2/models/adding/infer", headers=context, kind=kind)
    assert authorized.status == 200, authorized.body
    assert authorized.headers["x-tidegate-path"] == "/v2/models/pair_sum/versions/1/infer"
    assert authorized.headers["tidegate-rule"] == "pinned"
    refused = ask(resolver, "/v1/objectives/adding/infer", {"context": {}, "inputs": {}})
    assert refused.status == 404
    assert "resolve" in refused.json["detail"]


def test_two_environments_answer_side_by_side(
    deployment: Deployment, start: Starter, triton: Host, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    first, second = (start("gateway", deployment.variables(shards)) for _ in range(2))
    assert first.pid != second.pid
    for environment in (first, second, first):
        assert ask(environment, "/v2/models/adding/infer", PAIR).status == 200


def test_one_response_is_generated_and_a_stream_refused(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards))
    assert ask(gateway, "/v2/models/tallying/generate", {"COUNT": 1}).json["NUMBER"] == 0
    refused = ask(gateway, "/v2/models/tallying/generate_stream", {"COUNT": 1})
    assert (refused.status, b"resolve" in refused.body) == (501, True)


def test_figures_by_objective_and_rule_are_emitted_for_the_console_alone(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    for emits in (False, True):
        gateway = start("gateway", {**deployment.variables(shards), "TIDEGATE_RULE_METRICS": str(emits).lower()})
        assert ask(gateway, "/v2/models/adding/infer", PAIR).status == 200
        lines = [line for line in metric_lines(gateway) if "Objective" in line and "Variant" not in line]
        by_rule = [line for line in metric_lines(gateway) if "Rule" in line]
        assert len(lines) == len(by_rule) == emits
    assert [by_rule[0][name] for name in ("Objective", "Rule", "Variant", "Model")] == [
        "adding",
        "newest",
        "none",
        "pair_sum",
    ]
    assert by_rule[0]["DispatchTime"] == lines[0]["DispatchTime"]
    assert (by_rule[0]["ServerErrors"], by_rule[0]["Fallbacks"]) == ([0.0], [0.0])
