"""callers.yaml: what its grants mean, its mistakes, and what it adds to a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tidegate
from tidegate.errors import BundleError, RulesError
from tidegate.rules import Caller, Engine, Limit, Priority, Target, Traffic, compile_directory, load_bundle
from tidegate.rules.bundle import encode

from tests.docs.blocks import ROOT, blocks
from tests.support.bundles import sealed

from .test_authors_errors import FLEET, MARK, marked

OBJECTIVE = """\
objective: {name}
context: {{member_id: {{type: string}}}}
sticky_key: member_id
timeout_ms: 70
fallback: [popularity]
rules:
  - id: ab
    experiment: {{id: x, allocate: caller, cells: {{1: {{serve: ranker_v2/2, parameters: {{top_k: 3}}}}}}}}
    shadow: {{popularity: 10}}
    hedge_after_ms: 20
    fault: {{delay_ms: 5}}
  - id: default
    serve: ranker@champion
"""
PLACED = "  popularity: {shards: [cpu]}\n"
CALLERS = """\
callers:
  home:
    objectives: [rows, ranks, rows2]
    rate_per_s: 500
    concurrency: 50
    overrides: [spare_model, ranker/1]
  tests: {objectives: "*", overrides: ["*"], traffic: synthetic}
  "arn:aws:iam::1:role/x": {objectives: rows, rate_per_s: 0.5}
"""


def write(root: Path, callers: str | None, objectives: tuple[str, ...] = ("rows", "rows2", "ranks")) -> Path:
    (root / "objectives").mkdir(parents=True)
    (root / "fleet.yaml").write_text(FLEET.replace(PLACED, f"{PLACED}  spare_model: {{shards: [gpu-a]}}\n"))
    for name in objectives:
        (root / f"objectives/{name}.yaml").write_text(OBJECTIVE.format(name=name))
    if callers is not None:
        (root / "callers.yaml").write_text(callers, encoding="utf-8")
    return root


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return load_bundle(compile_directory(write(tmp_path / "rules", CALLERS)))


def test_callers_come_out_of_the_bundle(engine: Engine) -> None:
    assert engine.callers == {
        "home": Caller("home", ("ranks", "rows", "rows2"), ("ranker/1", "spare_model"), Limit(500, None, 50)),
        "tests": Caller("tests", None, None, traffic=Traffic.SYNTHETIC),
        "arn:aws:iam::1:role/x": Caller("arn:aws:iam::1:role/x", ("rows",), (), Limit(0.5)),
    }


def test_limits_priority_and_marks_come_out_of_the_bundle(tmp_path: Path) -> None:
    callers = """\
callers:
  home:
    objectives: "*"
    rate_per_s: 500.0
    burst: 20
    limits: {ranks: {rate_per_s: 2.5, concurrency: 3}, rows: {}}
    priority: low
    traffic: replay
    marks: [synthetic, replay]
"""
    root = write(tmp_path, callers)
    (root / "objectives/rows.yaml").write_text(
        OBJECTIVE.format(name="rows") + "limits: {rate_per_s: 1000, burst: 5, concurrency: 7}\nloggable: [member_id]\n"
    )
    engine = load_bundle(compile_directory(root))
    assert engine.callers == {
        "home": Caller(
            "home", None, (), Limit(500, 20), Traffic.REPLAY, {"ranks": Limit(2.5, None, 3)}, Priority.LOW,
            (Traffic.REPLAY, Traffic.SYNTHETIC),
        )
    }  # fmt: skip
    assert (engine.objectives["rows"].limit, engine.objectives["ranks"].limit) == (Limit(1000, 5, 7), Limit())
    assert (engine.objectives["rows"].loggable, engine.objectives["ranks"].loggable) == (("member_id",), ())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("limits: {burst: 5}", ["burst", "rate_per_s"]),
        ("limits: {concurrency: 0}", ["concurrency", "1"]),
        ("limits: {rate: 5}", ["unknown key 'rate'"]),
        ("loggable: [member]", ["'member'", "did you mean 'member_id'"]),
        ("loggable: [member_id, member_id]", ["twice"]),
        ("loggable: [allocations]", ["'allocations'"]),
        ("loggable: member_id", ["list"]),
    ],
)
def test_mistakes_in_an_objectives_limits_and_log(tmp_path: Path, line: str, words: list[str]) -> None:
    root = write(tmp_path, None)
    text = OBJECTIVE.format(name="rows") + line + "\n"
    (root / "objectives/rows.yaml").write_text(text)
    with pytest.raises(RulesError) as error:
        compile_directory(root)
    (problem,) = error.value.findings
    assert problem.line == len(text.splitlines())
    assert all(word in str(problem) for word in words)


def test_without_the_file_the_bundle_has_no_trace_of_callers(tmp_path: Path) -> None:
    data = compile_directory(write(tmp_path, None))
    assert load_bundle(data).callers is None
    assert b"callers" not in data.splitlines()[1]


def test_equal_grants_are_equal_bytes(tmp_path: Path) -> None:
    shuffled = """\
callers:
  "arn:aws:iam::1:role/x": {rate_per_s: 0.5, objectives: [rows], overrides: [], traffic: real}
  tests: {traffic: synthetic, overrides: "*", objectives: ["*"]}
  home: {overrides: [ranker/1, spare_model], objectives: [rows2, rows, ranks], concurrency: 50, rate_per_s: 500.0, limits: {rows: {}}}
"""
    first = compile_directory(write(tmp_path / "a", CALLERS))
    assert compile_directory(write(tmp_path / "b", shuffled)) == first
    assert compile_directory(write(tmp_path / "c", CALLERS.replace("500", "501"))) != first


def test_what_a_grant_covers() -> None:
    caller = Caller("c", ("rows",), ("svd", "ease/1"))
    assert [caller.may_use(name) for name in ("rows", "row", "")] == [True, False, False]
    pins = [("svd", None), ("svd", 1), ("ease", 1), ("ease", None), ("ease", 2), ("svd2", None)]
    assert [caller.may_pin(*pin) for pin in pins] == [True, True, True, False, False, False]
    assert Caller("all", None, None).may_use("any") and Caller("all", None, None).may_pin("any", 7)
    assert not Caller("none").may_pin("svd", None)


def test_what_grants_name_is_loaded_and_can_be_pinned(engine: Engine) -> None:
    of_rules = {target.name for target in engine.targets("rows")}
    assert of_rules == {"ranker@champion", "ranker_v2/2", "popularity"}
    assert {target.name for target in engine.targets()} == of_rules | {"spare_model", "ranker/1"}
    assert engine.pin("spare_model") == Target("spare_model", "spare_model", None, ("gpu-a",))
    assert engine.pin("ranker", 3) == Target("ranker/3", "ranker", 3, ("cpu",))
    assert engine.pin("nobody") is None
    pins = [("ranker", 1), ("ranker", 3), ("ranker", None), ("ranker", 2), ("spare_model", 1)]
    found = [engine.pin(*pin) for pin in pins]
    assert [target is not None and engine.names(target) for target in found] == [True, True, True, False, False]


def test_a_placed_model_that_nothing_names_is_not_loaded(tmp_path: Path) -> None:
    engine = load_bundle(compile_directory(write(tmp_path, 'callers: {tests: {objectives: "*", overrides: "*"}}\n')))
    assert "spare_model" in engine.fleet.models
    assert engine.pin("spare_model") is None


def test_an_override_changes_what_serves_and_nothing_answers_in_its_place(engine: Engine) -> None:
    decided = engine.decide("rows", {"allocations": {"x": 1}})
    pinned = engine.pin("spare_model")
    assert pinned is not None
    overridden = engine.override(decided, pinned)
    kept = {"objective", "rule", "parameters", "timeout_ms", "hedge_after_ms", "hedge_at", "revision"}
    before, after = decided.as_dict(), overridden.as_dict()
    assert before["parameters"] == {"top_k": 3}
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert {key: value for key, value in after.items() if key not in kept} == {
        "model": "spare_model",
        "version": None,
        "target": "spare_model",
        "shards": ["gpu-a"],
        "variant": None,
        "experiment": None,
        "cell": None,
        "fallbacks": [],
        "shadows": [],
        "fault": None,
        "reason": "override",
    }
    assert engine.override(decided, pinned) is overridden
    assert engine.decide("rows", {"allocations": {"x": 1}}) is decided


def test_very_many_overrides_are_all_right(engine: Engine) -> None:
    decided = engine.decide("rows", {})
    for version in range(1, 9000):
        pinned = engine.pin("ranker", version)
        assert pinned is not None and engine.override(decided, pinned).version == version


BROKEN = {
    "unknown_objective": (f"callers:\n  a:\n    objectives: [row]  {MARK}\n", ["'row'", "did you mean 'rows'"]),
    "unknown_objective_in_lines": (
        f"callers:\n  a:\n    objectives:\n      - rows\n      - rank  {MARK}\n",
        ["'ranks'"],
    ),
    "unknown_model": (f"callers:\n  a: {{objectives: rows, overrides: [rankr]}}  {MARK}\n", ["'rankr'", "'ranker'"]),
    "unknown_model_version": (f"callers:\n  a: {{objectives: rows, overrides: rankr/1}}  {MARK}\n", ["'ranker'"]),
    "an_alias": (
        f"callers:\n  a: {{objectives: rows, overrides: [ranker@champion]}}  {MARK}\n",
        ["alias", "write 'ranker/3'"],
    ),
    "bad_version": (f"callers:\n  a: {{objectives: rows, overrides: [ranker/latest]}}  {MARK}\n", ["overrides"]),
    "unknown_key": (
        f"callers:\n  a:\n    objectives: rows\n    rate: 5  {MARK}\n",
        ["unknown key 'rate'", "rate_per_s"],
    ),
    "misspelt_objectives": (f"callers:\n  a:\n    objective: rows  {MARK}\n", ["'objective'", "'objectives'"]),
    "no_objectives": (f"callers:\n  a: {{traffic: real}}  {MARK}\n", ["'objectives' is missing"]),
    "objectives_of_nothing": (f"callers:\n  a: {{objectives: []}}  {MARK}\n", ["objectives", "at least 1"]),
    "unknown_top_key": (f"callers:\n  a: {{objectives: rows}}\ncaller: {{}}  {MARK}\n", ["'caller'", "'callers'"]),
    "names_at_the_top": (
        f"home-screen: {{objectives: rows}}  {MARK}\nother: {{objectives: rows}}\n",
        ["'home-screen'", "callers: {home-screen: {…}}"],
    ),
    "misspelt_callers": (f"caller:  {MARK}\n  a: {{objectives: rows}}\n", ["unknown key 'caller'", "'callers'"]),
    "callers_of_nobody": (f"callers: {{}}  {MARK}\n", ["callers", "at least 1"]),
    "callers_without_value": (f"callers:  {MARK}\n", ["'callers' has no value"]),
    "a_caller_without_value": (f"callers:\n  a:  {MARK}\n  b: {{objectives: rows}}\n", ["'a' has no value"]),
    "a_list": (f"- a  {MARK}\n", ["mapping"]),
    "zero_rate": (f"callers:\n  a: {{objectives: rows, rate_per_s: 0}}  {MARK}\n", ["rate_per_s", "minimum"]),
    "text_rate": (f"callers:\n  a: {{objectives: rows, rate_per_s: '5'}}  {MARK}\n", ["rate_per_s", "number"]),
    "infinite_rate": (f"callers:\n  a: {{objectives: rows, rate_per_s: .inf}}  {MARK}\n", ["rate_per_s"]),
    "boolean_rate": (f"callers:\n  a: {{objectives: rows, rate_per_s: true}}  {MARK}\n", ["rate_per_s", "number"]),
    "fractional_concurrency": (f"callers:\n  a: {{objectives: rows, concurrency: 1.5}}  {MARK}\n", ["concurrency"]),
    "zero_concurrency": (f"callers:\n  a: {{objectives: rows, concurrency: 0}}  {MARK}\n", ["concurrency", "1"]),
    "shadow_traffic": (f"callers:\n  a: {{objectives: rows, traffic: shadow}}  {MARK}\n", ["real, synthetic"]),
    "a_mark_of_shadow": (f"callers:\n  a: {{objectives: rows, marks: [shadow]}}  {MARK}\n", ["synthetic, replay"]),
    "a_mark_of_real": (f"callers:\n  a: {{objectives: rows, marks: [real]}}  {MARK}\n", ["synthetic, replay"]),
    "unknown_priority": (f"callers:\n  a: {{objectives: rows, priority: highest}}  {MARK}\n", ["high, normal, low"]),
    "a_burst_alone": (f"callers:\n  a: {{objectives: rows, burst: 5}}  {MARK}\n", ["burst", "rate_per_s"]),
    "zero_burst": (f"callers:\n  a: {{objectives: rows, rate_per_s: 5, burst: 0}}  {MARK}\n", ["burst", "1"]),
    "a_limit_without_a_grant": (
        f"callers:\n  a:\n    objectives: rows\n    limits:\n      ranks: {{rate_per_s: 5}}  {MARK}\n",
        ["'ranks'", "grant"],
    ),
    "a_limit_of_nothing_known": (
        f"callers:\n  a:\n    objectives: '*'\n    limits:\n      rank: {{rate_per_s: 5}}  {MARK}\n",
        ["'rank'", "'ranks'"],
    ),
    "a_burst_of_a_pair": (
        f"callers:\n  a:\n    objectives: rows\n    limits:\n      rows: {{burst: 5}}  {MARK}\n",
        ["burst"],
    ),
    "unknown_key_of_a_limit": (
        f"callers:\n  a:\n    objectives: rows\n    limits:\n      rows: {{rate: 5}}  {MARK}\n",
        ["unknown key 'rate'"],
    ),
    "unknown_traffic": (f"callers:\n  a: {{objectives: rows, traffic: fake}}  {MARK}\n", ["real, synthetic"]),
    "granted_twice": (f"callers:\n  a:\n    objectives: [rows, rows]  {MARK}\n", ["'rows' is granted twice"]),
    "all_and_one": (f"callers:\n  a:\n    objectives: ['*', rows]  {MARK}\n", ["'*' covers"]),
    "duplicate_caller": (f"callers:\n  a: {{objectives: rows}}\n  a: {{objectives: ranks}}  {MARK}\n", ["duplicate"]),
    "unprintable_name": (f'callers:\n  "a\\nb": {{objectives: rows}}  {MARK}\n', ["ASCII"]),
    "nameless": (f'callers:\n  "": {{objectives: rows}}  {MARK}\n', ["name"]),
    "a_tab": (f"callers:\n\ta: {{objectives: rows}}  {MARK}\n", ["tab"]),
    "an_anchor": (f"callers:\n  a: &a {{objectives: rows}}  {MARK}\n", ["anchor"]),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN)
def test_a_mistake_is_told_once_with_its_line_and_what_would_be_right(
    text: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RulesError) as caught:
        compile_directory(write(tmp_path, text))
    assert [(finding.file, finding.line) for finding in caught.value.findings] == [
        ("callers.yaml", line) for line in marked(text)
    ]
    for word in words:
        assert word in str(caught.value.findings[0])


def test_all_mistakes_come_in_one_run(tmp_path: Path) -> None:
    text = "callers:\n  a: {objectives: row, traffic: no}\n  b: {objectives: rows, overrides: [rankr], x: 1}\n"
    root = write(tmp_path, text)
    (root / "objectives/ranks.yaml").write_text(
        OBJECTIVE.format(name="ranks").replace("serve: ranker@", "serve: rank@")
    )
    with pytest.raises(RulesError) as caught:
        compile_directory(root)
    told = [(finding.file, finding.line) for finding in caught.value.findings]
    assert told == [("callers.yaml", 2)] * 2 + [("callers.yaml", 3)] * 2 + [("objectives/ranks.yaml", 13)]


def test_a_broken_file_elsewhere_makes_no_unknown_name_here(tmp_path: Path) -> None:
    root = write(tmp_path, "callers:\n  a: {objectives: [rows, ranks], overrides: [rankr]}\n")
    (root / "objectives/ranks.yaml").write_text("objective: [\n")
    (root / "fleet.yaml").write_text("shards: [\n")
    with pytest.raises(RulesError) as caught:
        compile_directory(root)
    assert {finding.file for finding in caught.value.findings} == {"fleet.yaml", "objectives/ranks.yaml"}


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    root = write(tmp_path, None)
    (root / "callers.yaml").write_bytes(b"callers:\n  \xff: {}\n")
    with pytest.raises(RulesError, match=r"callers\.yaml:2:\d+: the file is not UTF-8"):
        compile_directory(root)
    (root / "callers.yml").write_text("callers: {}\n")
    with pytest.raises(RulesError, match=r"both callers\.yaml and callers\.yml exist"):
        compile_directory(root)


@pytest.mark.parametrize("entry", [{}, {"objectives": 7, "overrides": [], "traffic": "real"}, [], None])
def test_a_damaged_section_is_a_damaged_bundle(entry: object, tmp_path: Path) -> None:
    _, manifest, *lines, _ = compile_directory(write(tmp_path, CALLERS)).split(b"\n")
    damaged = sealed([encode(json.loads(manifest) | {"callers": {"a": entry}}), *lines])
    with pytest.raises(
        BundleError, match="the bundle is damaged: the manifest is not what the compiler writes: callers: a"
    ):
        load_bundle(damaged)


def test_callers_load_with_the_standard_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(compile_directory(write(tmp_path / "rules", CALLERS)))
    script = """
import sys
from tidegate.rules import load_bundle
engine = load_bundle(open(sys.argv[1], "rb").read())
assert engine.callers["home"].may_pin("ranker", 1)
assert not {"pydantic", "yaml"} & sys.modules.keys()
"""
    source = str(Path(tidegate.__file__).parents[1])
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {source!r})\n{script}", str(path)]
    subprocess.run(command, check=True, timeout=300)


def test_the_pages_file_compiles_with_the_example_rules(tmp_path: Path) -> None:
    (page,) = (block for block in blocks("docs/callers.md") if block.language == "yaml")
    files = {path.relative_to(ROOT / "routing_rules"): path for path in (ROOT / "routing_rules").rglob("*.yaml")}
    for name, path in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "callers.yaml").write_text(page.text, encoding="utf-8")
    callers = load_bundle(compile_directory(tmp_path)).callers
    assert callers is not None
    assert callers["home-screen"].may_pin("title_ranking_ease", 1)
    assert not callers["home-screen"].may_pin("title_ranking_ease", 2)
    assert callers["load-test"].traffic == "synthetic"
