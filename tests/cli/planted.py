"""A rules directory with one planted mistake per objective, and what `tidegate rules check` must say of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

AT = "2026-06-01T00:00:00Z"
MARK = "# <--"

FLEET = """\
shards: {cpu: {replicas: 1}}
models:
  base: {shards: [cpu]}
  better: {shards: [cpu]}
  forgotten: {shards: [cpu]}
aliases:
  base@champion: base
  base@unused: base
"""
LAYERS = """\
home:
  key: member_id
  experiments:
    left: [0, 4999]
    right: [5000, 9999]
"""
HEAD = """\
objective: {name}
context:
  member_id: {{type: string, required: true}}
  account: {{type: string}}
  country: {{type: string}}
  device: {{type: string, values: [tv, mobile, web], required: true}}
  page: {{type: string}}
  age: {{type: integer}}
  score: {{type: number}}
  app_version: {{type: version}}
  is_kids: {{type: boolean}}
  tags: {{type: set}}
sticky_key: {key}
rules:
"""
DEFAULT = "{id: default, serve: base}"


@dataclass(frozen=True)
class Planted:
    """An objective. `told` has the (rule, kind, rules that cover it) of every finding, those without a rule for the
    objective; the line of each rule that is told carries the mark."""

    name: str
    rules: tuple[str, ...]
    told: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    key: str = "member_id"

    @property
    def text(self) -> str:
        lines = []
        for rule in self.rules:
            marked = any(rule.startswith(f"{{id: {name},") for name, _, _ in self.told if name)
            lines.append(f"  - {rule}{f'  {MARK}' if marked else ''}\n")
        return HEAD.format(name=self.name, key=self.key) + "".join(lines)

    @property
    def lines(self) -> list[int]:
        return [number for number, line in enumerate(self.text.splitlines(), 1) if MARK in line]


def dead(name: str, *rules: str, covered_by: str, rest: tuple[str, ...] = (DEFAULT,)) -> Planted:
    """Rules of which the last, `dead`, is covered by those named."""
    return Planted(name, (*rules, *rest), (("dead", "unreachable-rule", tuple(covered_by.split())),))


def hole(name: str, *rules: str) -> Planted:
    return Planted(name, rules, (("", "uncovered-context", ()),))


PLANTED = [
    dead(
        "single_cover",
        "{id: europe, when: {country: [SE, NO]}, serve: base}",
        "{id: dead, when: {country: SE, is_kids: true}, serve: better}",
        covered_by="europe",
    ),
    dead(
        "closed_domain",
        "{id: big, when: {device: tv}, serve: base}",
        "{id: small, when: {device: [mobile, web]}, serve: base}",
        "{id: dead, when: {country: SE}, serve: better}",
        covered_by="big small",
        rest=(),
    ),
    dead(
        "three_together",
        "{id: kids, when: {is_kids: true}, serve: base}",
        "{id: adults, when: {is_kids: false, country: SE}, serve: base}",
        "{id: nobody, when: {is_kids: {present: false}}, serve: base}",
        "{id: elsewhere, when: {country: FI}, serve: base}",
        "{id: dead, when: {country: SE}, serve: better}",
        covered_by="kids adults nobody",
    ),
    dead(
        "whole_numbers",
        "{id: young, when: {age: {lte: 17}}, serve: base}",
        "{id: old, when: {age: {gte: 18}}, serve: base}",
        "{id: dead, when: {age: {gt: 10, lt: 30}}, serve: better}",
        covered_by="young old",
    ),
    Planted(
        "numbers_between",
        (
            "{id: low, when: {score: {lte: 17}}, serve: base}",
            "{id: high, when: {score: {gte: 18}}, serve: base}",
            "{id: alive, when: {score: {gt: 10, lt: 30}}, serve: better}",
            DEFAULT,
        ),
    ),
    dead(
        "versions",
        '{id: old, when: {app_version: {lt: "8.2"}}, serve: base}',
        '{id: new, when: {app_version: {gte: "8.2.0"}}, serve: base}',
        '{id: dead, when: {app_version: "8.10"}, serve: better}',
        covered_by="new",
    ),
    dead(
        "prefixes",
        "{id: home, when: {page: {prefix: /home}}, serve: base}",
        "{id: dead, when: {page: {prefix: /home/row, suffix: .html}}, serve: better}",
        covered_by="home",
    ),
    dead(
        "negations",
        "{id: swedes, when: {country: SE}, serve: base}",
        "{id: others, when: {country: {not: SE}}, serve: base}",
        "{id: dead, when: {country: {present: true}}, serve: better}",
        covered_by="swedes others",
    ),
    dead(
        "sets",
        "{id: drama, when: {tags: {contains_any: [drama, comedy]}}, serve: base}",
        "{id: dead, when: {tags: {contains_all: [drama, short]}}, serve: better}",
        covered_by="drama",
    ),
    dead(
        "alternatives",
        "{id: either, when: {any_of: [{country: SE}, {device: tv}]}, serve: base}",
        "{id: dead, when: {any_of: [{country: SE, is_kids: true}, {device: tv, age: 3}]}, serve: better}",
        covered_by="either",
    ),
    dead(
        "windows",
        "{id: before, active: {until: 2026-07-01}, serve: base}",
        "{id: after, active: {from: 2026-07-01}, serve: base}",
        "{id: dead, when: {country: SE}, serve: better}",
        covered_by="before after",
        rest=(),
    ),
    dead(
        "splits",
        "{id: ramp, split: {base: 95, better: 5}}",
        "{id: dead, when: {country: SE}, serve: better}",
        covered_by="ramp",
        rest=(),
    ),
    dead(
        "experiments",
        "{id: one, experiment: {id: left, layer: home, cells: {1: base, 2: better}}}",
        "{id: two, experiment: {id: right, layer: home, cells: {1: base, 2: better}}}",
        "{id: dead, when: {country: SE, member_id: {not: ''}}, serve: better}",
        covered_by="one two",
        rest=("{id: anonymous, when: {member_id: ''}, serve: base}",),
    ),
    Planted(
        "contradiction",
        ("{id: never, when: {age: {gt: 4, lt: 5}}, serve: better}", DEFAULT),
        (("never", "never-matches", ()),),
    ),
    Planted(
        "window_over",
        ("{id: spring, active: {from: 2026-03-01, until: 2026-05-01}, serve: better}", DEFAULT),
        (("spring", "window-over", ()),),
    ),
    Planted(
        "reached_only_before",
        (
            "{id: since, active: {from: 2026-05-01}, serve: base}",
            "{id: late, when: {country: SE}, serve: better}",
            "{id: default, serve: base}",
        ),
        (("late", "window-over", ("since",)), ("default", "window-over", ("since",))),
    ),
    hole("hole_in_a_domain", "{id: big, when: {device: [tv, web]}, serve: base}"),
    hole(
        "hole_between_numbers",
        "{id: low, when: {age: {lt: 30}}, serve: base}",
        "{id: high, when: {age: {gt: 30}}, serve: base}",
        "{id: unknown, when: {age: {present: false}}, serve: base}",
    ),
    hole(
        "hole_where_absent",
        "{id: swedes, when: {country: SE}, serve: base}",
        "{id: others, when: {country: {not: SE}}, serve: base}",
    ),
    hole("hole_in_time", "{id: until_august, active: {until: 2026-08-01}, serve: base}"),
    hole("hole_in_a_layer", "{id: one, experiment: {id: left, layer: home, cells: {1: base}}}"),
    Planted(
        "split_without_weight",
        ("{id: ramp, split: {base@champion: 0, better: 5}}",),
        (("ramp", "keyless-zero-weight", ()),),
        key="account",
    ),
    Planted(
        "empty_key_without_weight",
        ("{id: ramp, split: {base@champion: 0, better: 5}}",),
        (("ramp", "keyless-zero-weight", ()),),
    ),
    hole("hole_where_a_key_is_empty", "{id: known, when: {member_id: {not: ''}}, serve: base}"),
]


def write_planted(root: Path) -> Path:
    """The directory with all of them. `left` and `right` may each be run by one objective only, so of the two that do, the
    one with the hole has a layer of its own."""
    (root / "objectives").mkdir(parents=True)
    (root / "fleet.yaml").write_text(FLEET)
    layers = LAYERS + LAYERS.replace("home:", "page:").replace("left", "left_page").replace("right", "right_page")
    (root / "layers.yaml").write_text(layers)
    for planted in PLANTED:
        text = planted.text
        if planted.name == "hole_in_a_layer":
            text = text.replace("id: left, layer: home", "id: left_page, layer: page")
        (root / "objectives" / f"{planted.name}.yaml").write_text(text)
    return root
