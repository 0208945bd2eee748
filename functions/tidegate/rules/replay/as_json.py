"""A replay's report as plain JSON values, in the form that docs/replay.md documents."""

from __future__ import annotations

from math import isfinite
from typing import Any

from tidegate.rules.replay.report import MISMATCH_BELOW, Moved, ReplayReport, Shares
from tidegate.rules.replay.tally import Counted, Fault

FORMAT_VERSION = 1


def report_json(report: ReplayReport) -> dict[str, Any]:
    """The report as plain JSON values. Within a format version keys are only added."""
    tally = report.tally
    contexts = {each.objective: each.contexts for each in report.objectives}
    return {
        "format_version": FORMAT_VERSION,
        "ok": report.is_clean and report.complete,
        "complete": report.complete,
        "revision": report.revision,
        "lines": tally.lines,
        "skipped": tally.skipped,
        "contexts": report.contexts,
        "decided": tally.decided,
        "errors": [_fault(fault) for fault in tally.faults],
        "objectives": [
            {
                "objective": each.objective,
                "contexts": each.contexts,
                "decided": each.decided,
                "rules": each.rules,
                "unreached_rules": list(each.unreached),
            }
            for each in report.objectives
        ],
        "decisions": [_counted(each, contexts[each.decision.objective]) for each in tally.counted],
        "shares": [_shares(each) for each in report.shares],
        "tests": {
            "made": report.tests,
            "mismatch_below": MISMATCH_BELOW,
            "mismatches": sum(each.verdict == "mismatch" for each in report.shares),
        },
        "against": _against(report) if report.against is not None else None,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "kind": fault.kind,
        "objective": fault.objective or None,
        "detail": fault.detail,
        "count": fault.count,
        "first_lines": list(fault.lines),
    }


def _counted(each: Counted, contexts: int) -> dict[str, Any]:
    decision = each.decision
    return {
        "objective": decision.objective,
        "rule": decision.rule,
        "target": decision.target.name,
        "model": decision.model,
        "version": decision.version,
        "variant": decision.variant,
        "experiment": decision.experiment,
        "cell": decision.cell,
        "reason": decision.reason,
        "requests": each.requests,
        "share": each.requests / contexts,
    }


def _shares(each: Shares) -> dict[str, Any]:
    test = each.test
    return {
        "objective": each.race.objective,
        "rule": each.race.rule,
        "kind": "split" if each.race.kind == "split" else "experiment",
        "experiment": each.race.experiment,
        "allocate": None if each.race.kind == "split" else each.race.kind,
        "unit": each.unit,
        "count": each.total,
        "variants": [
            {
                "variant": variant.variant,
                "weight": variant.weight,
                "requests": variant.requests,
                "count": variant.count,
                "configured": variant.expected,
                "actual": variant.actual,
                "low": variant.low,
                "high": variant.high,
            }
            for variant in each.variants
        ],
        "verdict": each.verdict,
        "untested": each.untested or None,
        "test": None
        if test is None
        else {
            "statistic": test.statistic if isfinite(test.statistic) else None,
            "degrees_of_freedom": test.degrees,
            "p_value": test.p_value,
        },
    }


def _against(report: ReplayReport) -> dict[str, Any]:
    contexts, moved = sum(each.contexts for each in report.moved), sum(each.moved for each in report.moved)
    retuned = sum(each.retuned for each in report.moved)
    return {
        "revision": report.against,
        **_totals(contexts, moved, retuned),
        "objectives": [_moved(each) for each in report.moved],
    }


def _moved(each: Moved) -> dict[str, Any]:
    return {
        "objective": each.objective,
        **_totals(each.contexts, each.moved, each.retuned),
        "flows": [
            {"from": old, "to": new, "retuned": retuned, "contexts": count, "share": count / each.contexts}
            for old, new, retuned, count in each.flows
        ],
    }


def _totals(contexts: int, moved: int, retuned: int) -> dict[str, Any]:
    return {
        "contexts": contexts,
        "moved": moved,
        "moved_share": moved / contexts if contexts else 0.0,
        "retuned": retuned,
    }
