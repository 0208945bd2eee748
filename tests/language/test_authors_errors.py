"""Rules broken by hand: every error names the file, the line, the rule and what would be right, all in one run.

The line that an error must name carries the comment `# <--` in the broken text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tidegate.errors import Finding, RulesError
from tidegate.rules import compile_directory, load_bundle

MARK = "# <--"
FLEET = """\
shards:
  cpu: {replicas: 2}
  gpu-a: {replicas: 1}
models:
  ranker: {shards: [cpu]}
  ranker_v2: {shards: [gpu-a, cpu]}
  popularity: {shards: [cpu]}
aliases:
  ranker@champion: ranker/3
"""
LAYERS = """\
home:
  key: member_id
  holdout: [0, 499]
  experiments:
    "12345": [500, 2499]
    "12401": [[2500, 2999], [5000, 5999]]
"""
HEAD = """\
objective: {name}
summary: Rank titles.
owner: personalization
context:
  member_id: {{type: string, required: true}}
  country: {{type: string, from: header:CloudFront-Viewer-Country}}
  device: {{type: string, values: [tv, mobile, web]}}
  age: {{type: integer}}
  score: {{type: number}}
  app_version: {{type: version}}
  is_kids: {{type: boolean}}
  tags: {{type: set}}
sticky_key: member_id
timeout_ms: 80
fallback: [popularity]
rules:
"""
DEFAULT = "  - {id: default, serve: ranker@champion}\n"


def compile_files(root: Path, files: dict[str, str | bytes]) -> bytes:
    for name, text in ({"fleet.yaml": FLEET, "layers.yaml": LAYERS} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return compile_directory(root)


def findings_of(root: Path, files: dict[str, str | bytes]) -> tuple[Finding, ...]:
    with pytest.raises(RulesError) as caught:
        compile_files(root, files)
    for finding in caught.value.findings:
        assert str(finding) in str(caught.value)
    return caught.value.findings


def objective(name: str, rules: str, replaced: tuple[tuple[str, str], ...] = ()) -> str:
    """The valid head with some of its lines replaced (by their key), and the rules."""
    lines = HEAD.format(name=name).splitlines(keepends=True)
    for key, line in replaced:
        (place,) = (number for number, old in enumerate(lines) if old.strip().startswith(f"{key}:"))
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place] = f"{indent}{line}\n"
    return "".join(lines) + rules


def marked(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if MARK in line]


@dataclass(frozen=True)
class Broken:
    """One author's mistake: the rules of an objective, head lines replaced, and what the error must say."""

    name: str
    words: tuple[str, ...]
    rules: str = DEFAULT
    rule: str = ""
    head: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        return objective(self.name, self.rules, self.head)

    def check(self, findings: tuple[Finding, ...]) -> None:
        file = f"objectives/{self.name}.yaml"
        lines = marked(self.text)
        assert lines, "the case marks no line"
        own = [finding for finding in findings if finding.file == file]
        shown = "\n".join(map(str, own)) or "nothing"
        located = [finding for finding in own if finding.line in lines]
        assert located, f"no error on line {lines}; got: {shown}"
        assert any(self.is_told_by(finding) for finding in located), f"wanted {self.rule!r} {self.words}; got: {shown}"

    def is_told_by(self, finding: Finding) -> bool:
        place = f"objectives/{self.name}.yaml:{finding.line}:"
        place += f"{finding.column}:" * bool(finding.column) + f" rule {self.rule!r}:" * bool(self.rule)
        told = str(finding).removeprefix(place).lower()
        return str(finding).startswith(place) and all(word.lower() in told for word in self.words)


def rule(name: str, line: str, *words: str, head: dict[str, str] | None = None, rest: str = "serve: ranker") -> Broken:
    """A rule `r` with one wrong line, above a sound default."""
    body = f"  - id: r\n    {line}  {MARK}\n" + (f"    {rest}\n" if rest else "")
    return Broken(name, words, body + DEFAULT, "r", tuple((head or {}).items()))


def action(name: str, line: str, *words: str) -> Broken:
    return rule(name, line, *words, rest="")


def head(name: str, key: str, line: str, *words: str) -> Broken:
    return Broken(name, words, head=((key, f"{line}  {MARK}"),))


BROKEN = [
    # Keys.
    rule("unknown_rule_key", "serv: ranker", "serv", "serve"),
    rule("unknown_rule_key_when", "wehn: {is_kids: true}", "wehn", "when"),
    head("unknown_head_key", "timeout_ms", "timeot_ms: 80", "timeot_ms", "timeout_ms"),
    head("unknown_attribute_key", "age", "age: {type: integer, requird: true}", "requird", "required"),
    rule("unknown_operator", "when: {age: {gtee: 3}}", "gtee", "gte"),
    rule("unknown_attribute", "when: {contry: US}", "contry", "country"),
    rule("unknown_attribute_nested", "when: {any_of: [{age: 3}, {contry: US}]}", "contry", "country"),
    rule("unknown_active_key", "active: {form: 2026-01-01}", "form", "from"),
    action("unknown_cell_key", 'experiment: {id: "x", allocate: caller, cells: {1: {serv: ranker}}}', "serv", "serve"),
    action(
        "unknown_experiment_key", 'experiment: {id: "x", allocat: caller, cells: {1: ranker}}', "allocat", "allocate"
    ),
    Broken(
        "duplicate_key",
        ("serve", "duplicate"),
        f"  - id: r\n    serve: ranker\n    serve: popularity  {MARK}\n{DEFAULT}",
    ),
    Broken(
        "duplicate_attribute_in_when",
        ("age", "duplicate"),
        f"  - {{id: r, when: {{age: 3, age: 4}}, serve: ranker}}  {MARK}\n{DEFAULT}",
    ),
    Broken(
        "duplicate_split_key",
        ("ranker", "duplicate"),
        f"  - {{id: r, split: {{ranker: 1, ranker: 2}}}}  {MARK}\n{DEFAULT}",
    ),
    Broken("duplicate_attribute", ("country",), head=(("age", f"country: {{type: integer}}  {MARK}"),)),
    Broken(
        "duplicate_rule_ids",
        ("r", "line"),
        f"  - {{id: r, serve: ranker}}\n  - {{id: r, serve: popularity}}  {MARK}\n",
        "r",
    ),
    Broken("rule_without_id", ("id",), f"  - serve: ranker  {MARK}\n{DEFAULT}"),
    Broken("rule_with_bad_id", ("id",), f"  - {{id: 'two words', serve: ranker}}  {MARK}\n{DEFAULT}"),
    Broken("bad_objective_name", ("objective",), head=(("objective", f"objective: 'title ranking/7'  {MARK}"),)),
    # Targets.
    action("unknown_model", "serve: rankr", "rankr", "ranker"),
    action("unknown_alias", "serve: ranker@champoin", "ranker@champoin", "ranker@champion"),
    action("unknown_model_in_split", "split: {ranker: 1, popularty: 1}", "popularty", "popularity"),
    action("unknown_model_in_cell", 'experiment: {id: "x", allocate: caller, cells: {1: rankr}}', "rankr", "ranker"),
    rule("unknown_model_in_shadow", "shadow: {rankr: 10}", "rankr", "ranker"),
    rule("unknown_model_in_fallback", "fallback: [rankr]", "rankr", "ranker"),
    head("unknown_model_in_objective_fallback", "fallback", "fallback: [popularty]", "popularty", "popularity"),
    action("bad_model_version", "serve: ranker/latest", "serve", "model/version"),
    action("zero_model_version", "serve: ranker/0", "serve", "model/version"),
    action("target_is_a_number", "serve: 7", "serve", "model/version"),
    # Actions.
    Broken("empty_rules", ("rule",), "", head=(("rules", f"rules: []  {MARK}"),)),
    Broken("rules_is_a_mapping", ("rules", "list"), "  a: {serve: ranker}\n", head=(("rules", f"rules:  {MARK}"),)),
    Broken("no_action", ("serve", "split", "experiment"), f"  - id: r  {MARK}\n    when: {{age: 3}}\n{DEFAULT}", "r"),
    Broken(
        "two_actions",
        ("serve", "split"),
        f"  - id: r  {MARK}\n    serve: ranker  {MARK}\n    split: {{ranker: 1}}  {MARK}\n{DEFAULT}",
        "r",
    ),
    action("split_of_nothing", "split: {}", "split"),
    action("negative_weight", "split: {ranker: -1, popularity: 2}", "ranker", "minimum 0", "1000000000"),
    action("zero_sum", "split: {ranker: 0, popularity: 0}", "positive"),
    action("float_weight", "split: {ranker: 0.5, popularity: 2}", "ranker", "integer"),
    action("text_weight", 'split: {ranker: "5", popularity: 2}', "ranker", "integer"),
    action("boolean_weight", "split: {ranker: true, popularity: 2}", "ranker", "integer"),
    rule("percent_over_100", "shadow: {popularity: 101}", "popularity", "100"),
    rule("negative_percent", "shadow: {popularity: -1}", "popularity", "100"),
    rule("text_percent", "shadow: {popularity: '10'}", "popularity", "number"),
    rule("percent_nan", "shadow: {popularity: .nan}", "popularity"),
    rule("zero_timeout", "timeout_ms: 0", "timeout_ms"),
    rule("hedge_after_the_deadline", "hedge_after_ms: 80", "hedge_after_ms", "80"),
    rule("hedge_at_no_percentile", "hedge_at: p96", "hedge_at", "p95"),
    rule("two_times_to_hedge", "hedge_at: p95", "hedge_after_ms", rest="serve: ranker\n    hedge_after_ms: 20"),
    rule("float_timeout", "timeout_ms: 1.5", "timeout_ms", "integer"),
    rule("parameter_name", "parameters: {top k: 20}", "top k"),
    rule("parameter_name_digit", "parameters: {1st: 20}", "1st"),
    rule("parameter_reserved", "parameters: {Tidegate_traffic: real}", "Tidegate_traffic", "reserved"),
    rule("parameter_case", "parameters: {top_k: 20, Top_K: 30}", "'Top_K'", "'top_k'", "case"),
    rule(
        "parameter_case_of_a_cell",
        'experiment: {id: "x", allocate: caller, cells: {1: {serve: ranker, parameters: {TOP_K: 1}}}}',
        "'TOP_K'",
        "'top_k'",
        rest="parameters: {top_k: 20}",
    ),
    rule("parameter_list", "parameters: {top_k: [20]}", "top_k"),
    rule("parameter_null", "parameters: {top_k: null}", "top_k"),
    rule("parameter_newline", 'parameters: {mode: "a\\nb"}', "mode", "ascii"),
    rule("parameter_not_ascii", "parameters: {mode: é}", "mode", "ascii"),
    # Conditions.
    rule("type_text_for_integer", "when: {age: old}", "age", "integer"),
    rule("type_boolean_for_integer", "when: {age: true}", "age", "integer"),
    rule("type_float_for_integer", "when: {age: 1.5}", "age", "integer"),
    rule("type_integer_for_string", "when: {country: 7}", "country", "text"),
    rule("type_text_for_boolean", "when: {is_kids: 'true'}", "is_kids", "true"),
    rule("type_yes_for_boolean", "when: {is_kids: yes}", "is_kids", "true"),
    rule("type_one_for_boolean", "when: {is_kids: 1}", "is_kids", "true"),
    rule("type_null", "when: {country: null}", "country"),
    rule("type_text_for_number", "when: {score: {gt: high}}", "score", "number"),
    rule("number_infinite", "when: {score: {gt: .inf}}", "score"),
    rule("unquoted_version", "when: {app_version: {gte: 8.2}}", "app_version", "quote"),
    rule("bad_version", "when: {app_version: {gte: '8.x'}}", "app_version", "version"),
    rule("operator_prefix_on_integer", "when: {age: {prefix: '1'}}", "prefix", "age"),
    rule("operator_gt_on_string", "when: {country: {gt: US}}", "gt", "country"),
    rule("operator_gt_on_boolean", "when: {is_kids: {gt: false}}", "gt", "is_kids"),
    rule("operator_contains_on_string", "when: {country: {contains_any: [US]}}", "contains_any", "country"),
    rule("operator_equality_on_set", "when: {tags: drama}", "tags", "contains_any"),
    rule("operator_in_on_set", "when: {tags: {in: [drama]}}", "tags", "contains_any"),
    rule("outside_the_domain", "when: {device: phone}", "device", "phone", "mobile"),
    rule("outside_the_domain_in_list", "when: {device: [tv, phone]}", "device", "phone", "mobile"),
    rule("outside_the_domain_in_not", "when: {device: {not: phone}}", "device", "phone", "mobile"),
    rule("contradiction_present", "when: {country: {present: false, prefix: U}}", "country", "present"),
    rule("present_takes_a_boolean", "when: {country: {present: 1}}", "present", "true"),
    rule("empty_list", "when: {country: []}", "country"),
    rule("any_of_is_no_list", "when: {any_of: {country: US}}", "any_of", "list"),
    rule("any_of_of_nothing", "when: {any_of: []}", "any_of"),
    rule("regular_expression", "when: {country: {matches: 'U.*'}}", "matches", "prefix"),
    # Context.
    head("unknown_type", "age", "age: {type: int}", "int", "integer"),
    head("missing_type", "age", "age: {required: true}", "type"),
    head("required_and_default", "age", "age: {type: integer, required: true, default: 3}", "required", "default"),
    head("default_of_wrong_type", "age", "age: {type: integer, default: old}", "age", "integer"),
    head(
        "default_outside_the_domain",
        "device",
        "device: {type: string, values: [tv], default: web}",
        "device",
        "default",
        "tv",
    ),
    head("values_of_wrong_type", "age", "age: {type: integer, values: [1, two]}", "age", "integer"),
    head("values_of_nothing", "device", "device: {type: string, values: []}", "values"),
    head(
        "values_unquoted_version", "app_version", "app_version: {type: version, values: [8.2]}", "app_version", "quote"
    ),
    head("bad_from", "country", "country: {type: string, from: cookie:x}", "from", "header:"),
    head("reserved_allocations", "age", "allocations: {type: integer}", "allocations", "reserved"),
    head("reserved_any_of", "age", "any_of: {type: integer}", "any_of", "reserved"),
    head("sticky_key_unknown", "sticky_key", "sticky_key: memberid", "memberid", "member_id"),
    head("sticky_key_of_type_set", "sticky_key", "sticky_key: tags", "tags", "string"),
    head("sticky_key_of_type_number", "sticky_key", "sticky_key: [member_id, score]", "score", "string"),
    # Experiments.
    action("unknown_layer", 'experiment: {id: "12345", layer: hoem, cells: {1: ranker}}', "hoem", "home"),
    action("unknown_experiment", 'experiment: {id: "99999", layer: home, cells: {1: ranker}}', "99999", "layers.yaml"),
    action("experiment_without_layer", 'experiment: {id: "12345", cells: {1: ranker}}', "layer"),
    action("experiment_without_cells", 'experiment: {id: "12345", layer: home, cells: {}}', "cells"),
    action(
        "experiment_zero_weights",
        'experiment: {id: "12345", layer: home, cells: {1: {serve: ranker, weight: 0}}}',
        "weight",
    ),
    action(
        "experiment_unknown_mode", 'experiment: {id: "x", allocate: callr, cells: {1: ranker}}', "allocate", "caller"
    ),
    action(
        "experiment_unknown_layer_by_caller",
        'experiment: {id: "x", allocate: caller, layer: hoem, cells: {1: ranker}}',
        "hoem",
        "home",
    ),
    Broken(
        "cells_equal_as_text",
        ("1", "duplicate"),
        "  - id: r\n    experiment: {id: x, allocate: caller, cells: "
        f'{{1: ranker, "1": popularity}}}}  {MARK}\n{DEFAULT}',
    ),
    # Time.
    rule("inverted_window", "active: {from: 2026-02-01, until: 2026-01-01}", "from", "until"),
    rule("empty_window", "active: {from: 2026-01-01T12:00:00Z, until: 2026-01-01T13:00:00+01:00}", "from", "until"),
    rule("bad_timestamp", "active: {from: 2026-13-01}", "from", "2026-"),
    rule("timestamp_in_words", "active: {until: tomorrow}", "until", "2026-"),
    rule("timestamp_as_number", "active: {until: 1767225600}", "until", "2026-"),
    # YAML.
    Broken("tab", ("tab",), f"  - id: r\n\tserve: ranker  {MARK}\n"),
    Broken("anchor", ("anchor",), f"  - {{id: r, serve: &m ranker}}  {MARK}\n{DEFAULT}"),
    Broken("alias", ("alias",), f"  - {{id: r, serve: &m ranker}}  {MARK}\n  - {{id: s, serve: *m}}  {MARK}\n"),
    Broken("tag", ("tag",), f"  - {{id: r, serve: !!python/name:os.system ranker}}  {MARK}\n{DEFAULT}"),
    Broken("unclosed", (), f"  - {{id: r, serve: ranker  {MARK}\n  - {{id: s, serve: ranker}}  {MARK}\n"),
    Broken("two_documents", ("document",), f"{DEFAULT}---  {MARK}\nobjective: other  {MARK}\n"),
    Broken("merge_key", ("<<",), f"  - id: r\n    <<: {{serve: ranker}}  {MARK}\n{DEFAULT}"),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_an_error_names_file_line_rule_and_fix(tmp_path: Path, case: Broken) -> None:
    case.check(findings_of(tmp_path, {f"objectives/{case.name}.yaml": case.text}))


def test_all_errors_of_all_files_come_in_one_run(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, {f"objectives/{case.name}.yaml": case.text for case in BROKEN})
    for case in BROKEN:
        case.check(findings)
    assert list(findings) == sorted(findings, key=lambda finding: (finding.file, finding.line))


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_one_mistake_is_told_once(tmp_path: Path, case: Broken) -> None:
    """An author who sees four errors for one mistake stops reading them."""
    findings = findings_of(tmp_path, {f"objectives/{case.name}.yaml": case.text})
    assert {finding.line for finding in findings} <= set(marked(case.text)), "\n".join(map(str, findings))
    assert len(findings) <= len(marked(case.text)), "\n".join(map(str, findings))


def test_all_errors_of_one_file_come_in_one_run(tmp_path: Path) -> None:
    rules = f"""\
  - id: one
    serve: rankr  {MARK}
  - id: two
    when: {{contry: US}}  {MARK}
    split: {{ranker: -1, popularity: 2}}  {MARK}
  - id: three
    when: {{age: old}}  {MARK}
    shadow: {{popularity: 101}}  {MARK}
    serve: ranker
  - id: three  {MARK}
    serv: ranker  {MARK}
  - id: four
    active: {{from: 2026-02-01, until: 2026-01-01}}  {MARK}
    serve: ranker
"""
    text = objective("many", rules, (("sticky_key", f"sticky_key: memberid  {MARK}"),))
    findings = findings_of(tmp_path, {"objectives/many.yaml": text})
    assert set(marked(text)) <= {finding.line for finding in findings}


# Files of the directory.

FLEETS: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("unknown_shard", "shards: [gpu-a, cpu]", "shards: [gpu_a, cpu]", ("gpu_a", "gpu-a")),
    ("no_replicas", "replicas: 2", "replicas: 0", ("replicas", "1")),
    ("replicas_text", "replicas: 2", "replicas: two", ("replicas", "integer")),
    ("unknown_key", "replicas: 2", "replica: 2", ("replica", "replicas")),
    ("alias_of_nothing", "ranker/3", "rankr/3", ("ranker@champion", "did you mean 'ranker'")),
    ("alias_version", "ranker/3", "ranker/new", ("ranker@champion", "model/version")),
    ("alias_without_at", "ranker@champion", "champion", ("champion", "@")),
]


@pytest.mark.parametrize(("old", "new", "words"), [case[1:] for case in FLEETS], ids=[case[0] for case in FLEETS])
def test_errors_in_the_fleet(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    check_other_file(tmp_path, "fleet.yaml", FLEET, old, new, words)


LAYER_FILES: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("overlap", '"12401": [[2500, 2999], [5000, 5999]]', '"12401": [2499, 2999]', ("12401", "12345", "2499")),
    ("overlap_with_itself", "[5000, 5999]", "[2999, 5999]", ("12401", "2999")),
    ("overlap_with_holdout", '"12345": [500, 2499]', '"12345": [499, 2499]', ("12345", "holdout", "499")),
    ("beyond_the_end", "[5000, 5999]", "[5000, 10000]", ("12401", "9999")),
    ("negative", "holdout: [0, 499]", "holdout: [-1, 499]", ("holdout", "0")),
    ("inverted", '"12345": [500, 2499]', '"12345": [2499, 500]', ("12345", "500")),
    ("three_numbers", '"12345": [500, 2499]', '"12345": [500, 2499, 3000]', ("12345",)),
    ("floats", '"12345": [500, 2499]', '"12345": [500, 2499.5]', ("12345", "integer")),
    ("unknown_key", "holdout: [0, 499]", "hold_out: [0, 499]", ("hold_out", "holdout")),
    ("duplicate_experiment", '"12401"', '"12345"', ("12345",)),
]


@pytest.mark.parametrize(
    ("old", "new", "words"), [case[1:] for case in LAYER_FILES], ids=[case[0] for case in LAYER_FILES]
)
def test_errors_in_the_layers(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    check_other_file(tmp_path, "layers.yaml", LAYERS, old, new, words)


def check_other_file(root: Path, file: str, sound: str, old: str, new: str, words: tuple[str, ...]) -> None:
    assert old in sound
    broken = "\n".join(line.replace(old, new) + f"  {MARK}" if old in line else line for line in sound.splitlines())
    rules = '  - {id: ab, experiment: {id: "12345", layer: home, cells: {1: ranker, 2: ranker_v2}}}\n' + DEFAULT
    findings = findings_of(root, {file: broken, "objectives/o.yaml": objective("o", rules)})
    lines = marked(broken)
    told = [str(finding) for finding in findings if finding.file == file and finding.line in lines]
    assert any(all(word in text for word in words) for text in told), "\n".join(map(str, findings))


def test_a_layer_key_that_the_objective_does_not_declare(tmp_path: Path) -> None:
    rules = '  - {id: ab, experiment: {id: "12345", layer: home, cells: {1: ranker}}}\n' + DEFAULT
    layers = LAYERS.replace("key: member_id", "key: profile_id")
    findings = findings_of(tmp_path, {"layers.yaml": layers, "objectives/o.yaml": objective("o", rules)})
    assert any("profile_id" in str(finding) and "ab" in str(finding) for finding in findings), findings


def test_the_same_objective_in_two_files_names_both(tmp_path: Path) -> None:
    text = objective("o", DEFAULT)
    findings = findings_of(tmp_path, {"objectives/o.yaml": text, "objectives/p.yaml": text})
    assert any("objectives/p.yaml:1" in str(finding) and "'o'" in str(finding) for finding in findings), findings


def test_an_experiment_id_in_two_rules_of_one_objective_is_one_choice(tmp_path: Path) -> None:
    """Twice the same id would hash the same members into the same cells: refused, or the same cells for both."""
    once = 'experiment: {id: "12345", layer: home, cells: {1: ranker, 2: ranker_v2}}'
    rules = f"  - {{id: a, when: {{age: 1}}, {once}}}\n  - {{id: b, {once}}}\n{DEFAULT}"
    try:
        engine = load_bundle(compile_files(tmp_path, {"objectives/o.yaml": objective("o", rules)}))
    except RulesError as error:
        assert "12345" in str(error) and "rule 'b'" in str(error)
    else:
        for number in range(200):
            context = {"member_id": f"m{number}"}
            assert engine.decide("o", context | {"age": 1}, at=0.0).cell == engine.decide("o", context, at=0.0).cell


@pytest.mark.parametrize(
    ("files", "file", "words"),
    [
        ({"fleet.yaml": b""}, "fleet.yaml", ("empty",)),
        ({"fleet.yaml": b"# nothing\n"}, "fleet.yaml", ("empty",)),
        ({"fleet.yaml": b"- a\n"}, "fleet.yaml", ("mapping",)),
        ({"layers.yaml": b"- a\n"}, "layers.yaml", ("mapping",)),
        ({"objectives/p.yaml": b""}, "objectives/p.yaml", ("empty",)),
        ({"objectives/p.yaml": b"just words\n"}, "objectives/p.yaml", ("mapping",)),
        ({"objectives/p.yaml": b"objective: caf\xe9\n"}, "objectives/p.yaml", ("UTF-8",)),
        ({"objectives/p.yaml": "objective: o\n".encode("utf-16")}, "objectives/p.yaml", ("UTF-8",)),
        ({"objectives/p.yaml": b"objective: o\x00\n"}, "objectives/p.yaml", ()),
        ({"objectives/p.yaml": b"# " + b"x" * 5_000_000}, "objectives/p.yaml", ("large",)),
        ({"objectives/p.yaml": b"a: " + b"[" * 5000}, "objectives/p.yaml", ()),
    ],
    ids=["empty fleet", "comment only", "list fleet", "list layers", "empty objective", "scalar objective", "latin-1",
         "utf-16", "nul", "5 MB", "nested deeply"],
)  # fmt: skip
def test_files_that_are_no_rules(
    tmp_path: Path, files: dict[str, str | bytes], file: str, words: tuple[str, ...]
) -> None:
    sound: dict[str, str | bytes] = {"objectives/o.yaml": objective("o", "  - {id: r, serve: rankr}\n")}
    findings = findings_of(tmp_path, sound | files)
    own = [str(finding) for finding in findings if finding.file == file]
    assert any(all(word.lower() in text.lower() for word in words) for text in own), findings
    if "fleet.yaml" not in files:
        assert any(finding.file == "objectives/o.yaml" and finding.rule == "r" for finding in findings), (
            "not in one run"
        )


def test_a_missing_fleet_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "objectives").mkdir()
    (tmp_path / "objectives" / "o.yaml").write_text(objective("o", DEFAULT))
    with pytest.raises(RulesError, match=r"fleet\.yaml"):
        compile_directory(tmp_path)


def test_missing_layers_are_told_where_an_experiment_needs_them(tmp_path: Path) -> None:
    rules = '  - {id: ab, experiment: {id: "12345", layer: home, cells: {1: ranker}}}\n' + DEFAULT
    (tmp_path / "objectives").mkdir()
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "objectives" / "o.yaml").write_text(objective("o", rules))
    with pytest.raises(RulesError, match=r"rule 'ab'.*layers\.yaml"):
        compile_directory(tmp_path)


@pytest.mark.parametrize("make", [lambda root: None, lambda root: (root / "fleet.yaml").write_text(FLEET)])
def test_a_directory_without_objectives_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(RulesError, match="objectives"):
        compile_directory(tmp_path)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="nowhere"):
        compile_directory(tmp_path / "nowhere")


# What YAML 1.1 would have misread.


def test_words_and_numbers_of_yaml_1_1_are_text_as_written(tmp_path: Path) -> None:
    rules = """\
  - {id: nordic, when: {country: [NO, SE]}, serve: ranker}
  - {id: words, when: {country: [on, yes, off, y, n, No]}, serve: ranker_v2}
  - {id: numbers, when: {country: [12:30:45, 0o7x, 1_000, 2026-11-23]}, serve: popularity}
  - {id: on, when: {country: {not: off}}, serve: ranker, parameters: {mode: on, top_k: 20, flag: true}}
"""
    engine = load_bundle(compile_files(tmp_path, {"objectives/o.yaml": objective("o", rules)}))

    def matched(country: str) -> str:
        return engine.decide("o", {"member_id": "m", "country": country}, at=0.0).rule

    assert [matched(text) for text in ("NO", "SE")] == ["nordic"] * 2
    assert [matched(text) for text in ("on", "yes", "off", "y", "n", "No")] == ["words"] * 6
    assert [matched(text) for text in ("12:30:45", "0o7x", "1_000", "2026-11-23")] == ["numbers"] * 4
    assert matched("False") == "on"
    parameters = engine.decide("o", {"member_id": "m", "country": "x"}, at=0.0).parameters
    assert dict(parameters) == {"mode": "on", "top_k": 20, "flag": True}


def test_plain_timestamps_and_dates_open_and_close_a_window(tmp_path: Path) -> None:
    rules = """\
  - {id: day, active: {from: 2026-03-01, until: 2026-03-02}, serve: ranker}
  - {id: hour, active: {from: 2026-03-02T01:00:00+01:00, until: 2026-03-02T01:00:00Z}, serve: ranker}
  - {id: minute, active: {from: 2026-03-02T01:00:00, until: "2026-03-02T01:01:00"}, serve: ranker}
  - {id: else, serve: ranker}
"""
    engine = load_bundle(compile_files(tmp_path, {"objectives/o.yaml": objective("o", rules)}))
    midnight = 1772409600.0  # 2026-03-02T00:00:00Z
    expected = {
        -86400.001: "else",
        -86400: "day",
        -0.001: "day",
        0: "hour",
        3599.999: "hour",
        3600: "minute",
        3660: "else",
    }
    for shift, rule_id in expected.items():
        assert engine.decide("o", {"member_id": "m"}, at=midnight + shift).rule == rule_id


def test_the_sound_directory_compiles(tmp_path: Path) -> None:
    rules = '  - {id: ab, experiment: {id: "12345", layer: home, cells: {1: ranker, 2: ranker_v2}}}\n' + DEFAULT
    assert load_bundle(compile_files(tmp_path, {"objectives/o.yaml": objective("o", rules)})).objectives["o"]


def test_a_rules_file_of_another_ending_is_not_skipped_silently(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "objectives/o.yaml": objective("o", DEFAULT),
        "objectives/p.yml": objective("p", DEFAULT),
    }
    assert set(load_bundle(compile_files(tmp_path, files)).objectives) == {"o", "p"}
