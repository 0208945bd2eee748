"""`tidegate capacity`: its arithmetic, done by hand from docs/scale.md, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.capacity.figures import CURVES, MEASURED, NUMBERS, OPTIONAL, read_figures
from tidegate.cli import main

from bench.figures import figures_of
from tests.docs.blocks import ROOT, blocks
from tests.support.commands import typed

ROUND = {
    "decide_us": {"value": [[10, 1.0], [1000, 3.0]], "measured": "a test"},
    "bundle_bytes": {"value": [[10, 4000], [1000, 300_000]], "measured": "a test"},
    "variant_us": {"value": 0.5, "measured": "a test"},
    "gateway_us": {"value": [[1000, 150], [101_000, 250]], "measured": "a test"},
    "envoy_us": {"value": [[1000, 100]], "measured": "a test"},
    "gateway_ms": {"value": [[1000, 0.3]], "measured": "a test"},
    "envoy_ms": {"value": [[1000, 0.2]], "measured": "a test"},
    "function_ms": {"value": 1.8, "measured": "a test"},
    "cold_start_ms": {"value": 300, "measured": "a test"},
}


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(ROUND))
    return file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["capacity", *arguments], catch_exceptions=False)


def planes(figures: Path, *arguments: str) -> dict[str, Any]:
    result = run("--figures", str(figures), "--json", *arguments)
    assert result.exit_code == 0, result.output
    return {plane["name"]: plane for plane in json.loads(result.stdout)["planes"]}


def test_the_function_by_hand(figures: Path) -> None:
    plane = planes(figures, "--rps", "100000", "--body", "1kB", "--model-ms", "20", "--utilization", "0.5")[
        "function in the path"
    ]
    # 1.8 + 3.4 × 0.002 = 1.8068 ms are added, so 22 ms are billed, and 100 000 × 0.022 = 2 200 environments busy.
    assert plane["added_ms"] == pytest.approx(1.807)
    assert plane["environments"] == 2200
    assert plane["tritons"] == 667  # 100 000 / (300 × 0.5), rounded up
    assert plane["store_reads_per_s"] == 1100.0
    dollars = plane["dollars_per_million"]
    # 262 800 million a month: 300 at $1, the rest at $0.90.
    assert dollars["HTTP API"] == pytest.approx((300 + 262_500 * 0.9) / 262_800, abs=1e-6)
    assert dollars["Lambda, requests"] == 0.2
    assert dollars["Lambda, time"] == pytest.approx(22_000 * 1769 / 1024 * 0.0000133334, abs=1e-6)
    assert dollars["logs"] == 1.0
    assert dollars["polls of the pointer"] == pytest.approx(1100 / 100_000 * 0.4, abs=1e-6)
    assert dollars["reports"] == pytest.approx(220 / 100_000 * 0.625, abs=1e-6)
    # 0.72 TB an hour are 720 units beside two load balancers.
    assert dollars["load balancers of shards"] == pytest.approx((2 * 0.0225 + 720 * 0.008) / 360, abs=1e-6)
    assert dollars["Tritons"] == pytest.approx(667 * 0.526 / 360, abs=1e-6)
    assert dollars["sum"] == pytest.approx(sum(dollars.values()) - dollars["sum"], abs=1e-5)
    limits = {limit["name"].partition(":")[0] + limit["unit"]: limit for limit in plane["limits"]}
    assert limits["API Gatewayrequests/s"]["breaks_at_rps"] == 10_000
    assert limits["Lambdaexecutions"]["used"] == 10_000, "ten requests a second each"
    assert limits["Lambdaexecutions"]["exceeded"]
    assert limits["DynamoDBwrites/s"]["used"] == 220


def test_a_function_with_less_memory_has_less_of_a_core(figures: Path) -> None:
    plane = planes(figures, "--rps", "100", "--body", "0", "--memory-mib", "884.5")["function in the path"]
    assert plane["added_ms"] == pytest.approx(3.6)


def test_proxies_by_hand(figures: Path) -> None:
    found = planes(figures, "--rps", "10000", "--body", "51kB", "--utilization", "0.5", "--resolver-us", "60")
    gateway, envoy = found["gateway server in the path"], found["Envoy and resolver"]
    assert gateway["cores"] == 4.0  # 10 000 × 200 µs / 0.5
    assert gateway["servers"] == 1
    assert gateway["store_reads_per_s"] == 4.0  # eight processes every two seconds
    assert gateway["dollars_per_million"]["proxies"] == pytest.approx(8 * 0.044625 / 36, abs=1e-6)
    # 10 000 × 102 kB × 3 600 are 3 672 GB an hour.
    assert gateway["dollars_per_million"]["load balancer"] == pytest.approx((0.0225 + 3672 * 0.008) / 36, abs=1e-6)
    assert envoy["cores"] == 3.2  # 10 000 × (100 + 60) µs / 0.5
    assert envoy["store_reads_per_s"] == 1.0  # 1.2 cores of the resolver: two processes


def test_a_resolver_that_was_measured_is_not_assumed(figures: Path) -> None:
    assumed = run("--rps", "10000", "--figures", str(figures)).output
    assert "the resolver's 100 µs are assumed" in assumed
    figures.write_text(json.dumps(ROUND | {"resolver_us": {"value": 60, "measured": "a test"}}))
    measured = run("--rps", "10000", "--figures", str(figures)).output
    assert "the resolver's, at 60 µs" in measured
    assert "are assumed" not in measured


def test_the_filters_of_envoy_are_counted(figures: Path) -> None:
    filters = {"value": [[1000, 1.6], [101_000, 2]], "measured": "a test"}
    figures.write_text(json.dumps(ROUND | {"filters": filters}))
    arguments = ("--rps", "10000", "--body", "51kB", "--utilization", "0.5", "--resolver-us", "60")
    # 10 000 × (100 × 1.8 + 60) µs / 0.5, where 51 kB are half way between 1 and 101.
    assert planes(figures, *arguments)["Envoy and resolver"]["cores"] == 4.8
    figures.write_text(json.dumps(ROUND | {"filters": {**filters, "value": [[1000, 2], [2000, 1.5]]}}))
    assert planes(figures, *arguments)["Envoy and resolver"]["cores"] == 3.2, "never less than Envoy takes by itself"
    figures.write_text(json.dumps(ROUND | {"filters": filters}))
    shown = " ".join(run(*arguments, "--figures", str(figures)).output.split())
    assert "3.6 are Envoy's, 1.80 times those of one without Tidegate's filters, and 1.2 the resolver's" in shown


def test_what_the_report_says_of_the_filters_is_taken() -> None:
    report = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    for plane, cells in {"plain Envoy": "| 100 | 0", "Envoy that decides": "| 260 | 40"}.items():
        row = rf"(?m)^(\| 1 kB \| {re.escape(plane)} \|(?:[^|]+\|){{3}}[^|]+)\| \d+ \| \d+"
        report, count = re.subn(row, rf"\1{cells}", report)
        assert count == 1
    assert figures_of(report)["filters"]["value"][0] == [1000, 2.2]


def test_the_sdk_by_hand(figures: Path) -> None:
    plane = planes(figures, "--rps", "1000", "--rules", "100", "--callers", "3000")["SDK, direct"]
    assert (
        plane["cores"] == 0.003
    )  # 1 000 × (2 + 2 × 0.5) µs: 2 is half way between 10 and 1 000 on a logarithmic scale
    assert plane["store_reads_per_s"] == 1000.0, "no more than there are requests"
    assert plane["added_ms"] == 0.003


def test_a_million_a_second_with_large_bodies_says_what_breaks_first(figures: Path) -> None:
    arguments = ("--rps", "1000000", "--body", "5MB", "--objectives", "500")
    limits = planes(figures, *arguments)["function in the path"]["limits"]
    assert next(limit["unit"] for limit in limits if limit["exceeded"]) == "bytes", "no rate is low enough for that"
    rates = [limit["breaks_at_rps"] for limit in limits if limit["exceeded"] and limit["breaks_at_rps"]]
    assert rates == sorted(rates)
    shown = run("--figures", str(figures), *arguments).output
    assert "EXCEEDED: Lambda: payload of a request or an answer" in shown
    assert "of 6,291,456, cannot be raised" in shown
    assert "assumed:" in shown


def test_the_agents_cache_takes_the_polls(figures: Path) -> None:
    arguments = ("--rps", "1000000", "--model-ms", "28")
    direct = planes(figures, *arguments)["function in the path"]
    cached = planes(figures, *arguments, "--cached")["function in the path"]
    assert direct["store_reads_per_s"] == 15_000
    assert cached["store_reads_per_s"] == cached["tritons"] == 5556
    # Beside the bodies, 15 000 polls/s of 500 bytes are 27 GB an hour.
    more = [each["dollars_per_million"]["load balancers of shards"] for each in (direct, cached)]
    assert more[1] - more[0] == pytest.approx(27 * 0.008 / 3600, abs=1e-6)


def test_small_requests_cost_the_connections_to_shards_and_to_agents(figures: Path) -> None:
    arguments = ("--rps", "1000", "--body", "0", "--model-ms", "2998")
    direct = planes(figures, *arguments)["function in the path"]
    cached = planes(figures, *arguments, "--cached")["function in the path"]
    assert direct["environments"] == 3000
    prices = [each["dollars_per_million"]["load balancers of shards"] for each in (direct, cached)]
    assert prices == pytest.approx([(2 * 0.0225 + units * 0.008) / 3.6 for units in (1, 2)], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--rps'"),
        (("--rps", "0"), "'0' is not a number from 0.001 to 1,000,000"),
        (("--rps", "2000000"), "'2000000' is not a number from 0.001 to 1,000,000"),
        (("--rps", "1e-310"), "'1e-310' is not a number"),
        (("--rps", "1", "--triton-rps", "1e-320"), "'1e-320' is not a number from 0.001 to 1,000,000"),
        (("--rps", "1", "--model-ms", "1,5"), "'1,5' is not a number"),
        (("--rps", "1_0,0"), "'1_0,0' is not a number"),
        (("--rps", "nan"), "'nan' is not a number"),
        (("--rps", "many"), "'many' is not a number"),
        (
            ("--rps", "1", "--body", "1 parsec"),
            "'1 parsec' is not a size: write bytes, or a number with kB, MB, KiB or MiB",
        ),
        (("--rps", "1", "--body", "2000MB"), "'2000MB' is more than 1 GB"),
        (("--rps", "1", "--body", "-1"), "'-1' is not a size"),
        (("--rps", "1", "--utilization", "1.5"), "'1.5' is not a number from 0.01 to 1"),
        (("--rps", "1", "--utilization", "1e-310"), "'1e-310' is not a number from 0.01 to 1"),
        (("--rps", "1", "--shards", "0"), "0 is not in the range"),
        (("--rps", "1", "--triton-instance", "p9.huge"), "the price of 'p9.huge' is not known: give --triton-price"),
        (("--rps", "1", "--figures", "/nowhere.json"), "cannot be read: No such file"),
    ],
)
def test_bad_input_is_refused_with_what_would_be_right(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_thousands_may_be_grouped(figures: Path) -> None:
    for written in ("250,000", "250_000", "2.5e5"):
        assert planes(figures, "--rps", written)["function in the path"]["tritons"] == 1389, written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gateway_us": None}, "'gateway_us' must be an object such as"),
        ({"gateway_us": {"value": []}}, "'gateway_us' must have pairs of numbers"),
        ({"gateway_us": {"value": [[2, 1], [1, 1]]}}, "positions ascending"),
        ({"gateway_us": {"value": [[1, True]]}}, "pairs of numbers"),
        ({"function_ms": {"value": -1}}, "'function_ms' must have a number of at least 0"),
        ({"unheard_of": {"value": 1}}, "'unheard_of' is not a figure; there are decide_us"),
    ],
)
def test_malformed_figures_are_refused(figures: Path, change: dict[str, Any], message: str) -> None:
    figures.write_text(json.dumps(ROUND | change))
    result = run("--rps", "1", "--figures", str(figures))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_object_is_refused(figures: Path, text: str) -> None:
    figures.write_text(text)
    assert run("--rps", "1", "--figures", str(figures)).exit_code == 2


def test_the_figures_are_those_of_the_report() -> None:
    """As `python -m bench` writes them; a small difference is that of a report that was written again elsewhere."""
    found = figures_of((ROOT / "docs/performance.md").read_text(encoding="utf-8"))
    stored = json.loads(MEASURED.read_text(encoding="utf-8"))
    assert found.keys() - OPTIONAL.keys() == stored.keys() - OPTIONAL.keys() == {*CURVES, *NUMBERS}
    figures = read_figures()
    for name, entry in found.items():
        if name not in stored:
            continue
        value, known = entry["value"], stored[name]["value"]
        points = value if isinstance(value, list) else [[0, value]]
        there = known if isinstance(known, list) else [[0, known]]
        assert [x for x, _ in points] == [x for x, _ in there], name
        assert [y for _, y in points] == pytest.approx([y for _, y in there], rel=0.5), (
            f"run `python -m bench.figures`: {name}"
        )
        assert figures.measured[name].startswith("20")


@pytest.mark.parametrize(
    "command",
    [
        line.removeprefix("$ ")
        for block in blocks("docs/scale.md")
        for line in block.text.splitlines()
        if line.startswith("$ tidegate capacity")
    ],
)
def test_a_documented_command_succeeds(command: str) -> None:
    done = typed(command)
    assert done.returncode == 0, done.stderr
    assert "SDK, direct" in done.stdout


def test_what_the_report_says_of_a_resolver_is_taken() -> None:
    report = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    changed = re.sub(r"takes \*\*\d+ µs\*\* of CPU time", "takes **62 µs** of CPU time", report)
    assert figures_of(changed)["resolver_us"]["value"] == 62.0
