"""What moves between two revisions, in words and rows, and as Markdown for a pull request, with a Sankey diagram in Mermaid
(https://mermaid.js.org/syntax/sankey.html).

Names of targets, rules and objectives have no character that Markdown or Mermaid obeys (`language/documents.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidegate.analysis.compare.shares import Flow, ObjectiveShares
from tidegate.analysis.figures import percent

SHOWN_FLOWS = 20
HEADS = ("share", "from", "to", "rules", "")

_REST = "(all other targets)"
_SANKEY = """\
```mermaid
---
config: {sankey: {suffix: " %"}}
---
sankey-beta
"""


def changing(shares: ObjectiveShares) -> list[Flow]:
    """Return the flows in which anything changes, the largest first."""
    return [flow for flow in shares.flows if flow.moved or flow.retuned]


def headline(shares: ObjectiveShares) -> str:
    """Return one line: the share that moves in an objective, its error, and how contexts are weighted."""
    words = f"{percent(shares.moved)} of the traffic moves"
    if shares.retuned:
        words += f", {percent(shares.retuned)} keeps its target with other settings"
    over = "every case of a context counts alike"
    if shares.contexts is not None:
        over = f"over {shares.contexts:,} context{'s' * (shares.contexts != 1)} of the log"
    estimate = shares.changing
    how = "exact" if not estimate.drawn else f"estimated, ± {percent(estimate.bound)} with 95 % confidence"
    return f"{words} ({how}; {over})"


def flow_rows(shares: ObjectiveShares) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table with `HEADS`: the largest flows, all others as one, and what is unchanged."""
    flows = changing(shares)
    for flow in flows[:SHOWN_FLOWS]:
        rules = flow.old_rule or "-"
        if flow.new_rule != flow.old_rule:
            rules += f" → {flow.new_rule or '-'}"
        yield percent(flow.share), flow.old_target, flow.new_target, rules, "moved" if flow.moved else "retuned"
    if len(flows) > SHOWN_FLOWS:
        rest = sum(flow.share for flow in flows[SHOWN_FLOWS:])
        yield percent(rest), f"{len(flows) - SHOWN_FLOWS:,} smaller flows; --json has all", "", "", ""
    yield percent(shares.unchanged), "unchanged", "", "", ""


def flows_markdown(objectives: Sequence[ObjectiveShares]) -> str:
    """Return the objectives in which anything moves or is retuned, one below the other."""
    shown = [each for each in objectives if each.moved or each.retuned]
    if not shown:
        return "Nothing moves: every request is served as before.\n"
    return "\n".join(line for each in shown for line in _section(each))


def _section(shares: ObjectiveShares) -> Iterator[str]:
    yield f"### {shares.objective}\n\n{headline(shares)}\n"
    yield _SANKEY + "".join(_links(shares)) + "```\n"
    rule = ["---:", *("---" for _ in HEADS[1:])]
    yield from (f"| {' | '.join(cells)} |" for cells in (HEADS, rule, *flow_rows(shares)))
    yield ""


def _links(shares: ObjectiveShares) -> Iterator[str]:
    """Yield the links of a Sankey diagram, as shares in percent: the smallest are one."""
    links = shares.by_target()
    for old, new, share, _ in links[:SHOWN_FLOWS]:
        yield f"{old} (old),{new} (new),{100 * share:.4f}\n"
    if rest := sum(share for _, _, share, _ in links[SHOWN_FLOWS:]):
        yield f"{_REST} (old),{_REST} (new),{100 * rest:.4f}\n"
