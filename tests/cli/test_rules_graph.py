"""`tidegate rules graph`: objectives, rules, targets and shards as Mermaid text."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.rules_runner import RULES, rules, rules_json, write

NODE = r"([orts][0-9_]+)"
NODE_LINE = re.compile(rf'  {NODE}(\["[^"]*"\]|\(\["[^"]*"\]\)|\[\("[^"]*"\)\])')
EDGE_LINE = re.compile(rf'  {NODE} (-->|-\.->) (\|"[^"]*"\| )?{NODE}')


def edges(text: str) -> set[tuple[str, str, str]]:
    """The edges of a flowchart as (from, to, label), by the first line of each node's label."""
    names: dict[str, str] = {}
    found = []
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    for line in lines:
        node, edge = NODE_LINE.fullmatch(line), EDGE_LINE.fullmatch(line)
        assert node or edge, line
        if node:
            names[node[1]] = node[2].strip('[]()"').split("<br>")[0]
        elif edge:
            found.append((edge[1], edge[4], (edge[3] or "").strip('|" ')))
    return {(names[start], names[end], label) for start, end, label in found}


def test_mermaid_leads_from_objectives_to_shards() -> None:
    drawn = edges(rules("graph", RULES).stdout)
    assert {
        ("title_ranking", "1 · kids", ""),
        ("1 · kids", "title_ranking_popularity", ""),
        ("3 · svd-canary", "title_ranking_svd", "5 %"),
        ("3 · svd-canary", "title_ranking_svd", "shadow 10 %"),
        ("2 · ab-12345", "title_ranking@champion", "cell 1: 50 %"),
        ("1 · ab-search-2026", "title_search_semantic", "cell semantic"),
        ("title_ranking", "title_ranking_popularity", "fallback"),
        ("title_ranking_popularity", "beta", ""),
        ("title_ranking_popularity", "alpha", ""),
    } <= drawn


def test_one_objective_is_drawn_alone() -> None:
    drawn = edges(rules("graph", RULES, "--objective", "title_search").stdout)
    assert {start for start, _, _ in drawn} & {"title_search", "title_ranking"} == {"title_search"}
    assert rules("graph", RULES, "--objective", "title_serch").exit_code == 2


def test_weird_values_break_nothing(tmp_path: Path) -> None:
    ranking = r"""
objective: ranking
owner: 'a "b" <c> & #d `e` \f]'
context: {country: {type: string}, tags: {type: set}}
rules:
  - {id: end, when: {country: ["--> x", "\"]\n  t0 --> t1", "%%{init}%%", "\x07", "]]>", "</svg>"]}, serve: better/2}
  - {id: subgraph, when: {country: {present: false}, tags: {contains_all: ["|a|"]}}, serve: base@champion}
"""
    directory = write(tmp_path, {"objectives/ranking.yaml": ranking})
    drawn = edges(rules("graph", directory).stdout)
    assert ("1 · end", "better/2", "") in drawn
    assert ("2 · subgraph", "base@champion", "") in drawn


@pytest.mark.parametrize("count", [100, 3000])
def test_many_rules_stay_within_what_mermaid_draws(count: int, tmp_path: Path) -> None:
    lines = "".join(
        f"  - {{id: rule-{n}, when: {{n: {n}}}, split: {{base: {n % 7 + 1}, better: 1}}}}\n" for n in range(count)
    )
    ranking = f"objective: ranking\ncontext: {{n: {{type: integer}}}}\nsticky_key: n\nrules:\n{lines}"
    directory = write(tmp_path, {"objectives/ranking.yaml": ranking})
    text = rules("graph", directory).stdout
    assert len(edges(text)) <= 500
    assert len(text) <= 50_000
    assert f"rule-{count - 1}" in text


def test_neighbours_that_serve_the_same_are_one_node_where_rules_are_many(tmp_path: Path) -> None:
    lines = "".join(f"  - {{id: r{n}, when: {{n: {n}}}, serve: {'base' if n < 30 else 'better'}}}\n" for n in range(60))
    ranking = f"objective: ranking\ncontext: {{n: {{type: integer}}}}\nrules:\n{lines}"
    drawn = edges(rules("graph", write(tmp_path, {"objectives/ranking.yaml": ranking})).stdout)
    assert ("1 · r0 … 30 · r29", "base", "") in drawn
    assert ("31 · r30 … 60 · r59", "better", "") in drawn


def test_json_holds_the_text_and_findings_come_first(tmp_path: Path) -> None:
    told = rules_json("graph", RULES)
    assert (told["format"], told["file"]) == ("mermaid", None)
    assert told["text"].startswith("flowchart LR\n")
    broken = write(tmp_path, {"objectives/ranking.yaml": "objective: ranking\n"})
    assert rules_json("graph", broken, exit_code=1)["findings"]
    assert rules("graph", RULES, "-o", tmp_path / "no" / "where.mmd").exit_code == 2


def test_a_name_that_ends_in_md_gets_markdown(tmp_path: Path) -> None:
    mermaid, markdown = tmp_path / "rules.mmd", tmp_path / "rules.md"
    told = rules("graph", RULES, "-o", markdown).stdout
    assert rules("graph", RULES, "-o", mermaid).exit_code == 0
    assert mermaid.read_text() == rules("graph", RULES).stdout
    assert markdown.read_text() == f"```mermaid\n{mermaid.read_text()}```\n"
    assert told == f"{markdown}: markdown, {markdown.stat().st_size} bytes\n"
    refused = rules("graph", RULES, "-o", tmp_path / "rules.svg")
    assert (refused.exit_code, (tmp_path / "rules.svg").exists()) == (2, False)
    assert "name it .md or .mmd" in refused.stderr


@pytest.mark.parametrize(
    "hostile",
    [
        "%%{init: {'theme': 'dark'}}%%",
        "%%{ wrap }%%",
        "%% comment",
        "<script>alert(1)</script>",
        "<br>",
        '"] --> t0["',
        "#quot;",
        "&quot;",
        "`**bold**`",
        "$$x^2$$",
        "fa:fa-ban",
        "style:a#b;",
        "1. one",
        "- one",
        "line\nbreak",
        "\x1b[31mred",
        "[click](http://127.0.0.1)",
    ],
)
def test_mermaid_obeys_nothing_within_a_label(hostile: str, tmp_path: Path) -> None:
    ranking = {
        "objective": "ranking",
        "owner": hostile,
        "context": {"country": {"type": "string"}},
        "rules": [{"id": "one", "when": {"country": hostile}, "serve": "base"}, {"id": "rest", "serve": "better"}],
    }
    directory = write(tmp_path, {"objectives/ranking.yaml": yaml.safe_dump(ranking, sort_keys=False)})
    text = rules("graph", directory).stdout
    drawn = edges(text)
    assert {("1 · one", "base", ""), ("2 · rest", "better", "")} <= drawn
    labels = [part.replace("<br>", "") for part in re.findall(r'"([^"]*)"', text)]
    for label in labels:
        bare = re.sub(r"#(?:[a-z]+|[0-9]+);", "", label)
        assert not re.search(r'[#"<>&`\\{}$\x00-\x1f\x7f]|%%|:\S', bare), label
    shown = [html.unescape(re.sub(r"#([a-z]+|[0-9]+);", lambda it: _entity(it[1]), label)) for label in labels]
    plain = "".join(each if each.isprintable() else " " for each in hostile)
    assert any(plain in label for label in shown), shown


def _entity(name: str) -> str:
    return f"&#{name};" if name.isdecimal() else f"&{name};"
