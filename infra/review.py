"""A page for operators to review before a deployment: the resources, the rights, and every accepted finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from infra.assembly import Assembly, as_list, text_of
from infra.audit.access import written_reasons

FILE = "REVIEW.md"


def write_review(assembly: Assembly, folder: Path, stage: str) -> Path:
    """Write the review page beside the templates, and return its path."""
    file = folder / FILE
    file.write_text("\n".join(_lines(assembly, stage)) + "\n", encoding="utf-8")
    return file


def _lines(assembly: Assembly, stage: str) -> Iterator[str]:
    yield f"# Stage {stage}: what would be deployed"
    yield from (
        "",
        "Made with the templates in this folder; `make infra` deploys exactly these.",
        "",
        "## Resources",
        "",
    )
    yield from ("| template | resources | of which |", "|---|---|---|")
    for name, template in assembly.templates.items():
        kinds = Counter(body["Type"].removeprefix("AWS::") for body in template.get("Resources", {}).values())
        listed = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))
        yield f"| {name} | {sum(kinds.values())} | {listed} |"
    yield from (
        "",
        "## Who may do what",
        "",
        "| policy | effect | actions | resources | only if |",
        "|---|---|---|---|---|",
    )
    for policy in assembly.resources("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            yield _row(
                f"{policy.template}/{policy.id}",
                statement["Effect"],
                "<br>".join(as_list(statement["Action"])),
                "<br>".join(text_of(each) for each in as_list(statement["Resource"])),
                ", ".join(sorted(statement.get("Condition", {}))),
            )
    yield from ("", "## Findings that are accepted, and why", "", "| check | reason | resources |", "|---|---|---|")
    places: dict[tuple[str, str], list[str]] = {}
    for resource in assembly.resources():
        for check, reason in written_reasons(resource):
            places.setdefault((check, reason), []).append(f"{resource.template}/{resource.id}")
    for (check, reason), where in sorted(places.items()):
        yield _row(check, reason, _shortened(sorted(set(where))))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _shortened(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
