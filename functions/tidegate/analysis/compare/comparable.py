"""Makes two revisions comparable, where the targets of one are resolved to versions and those of the other are not."""

from __future__ import annotations

from tidegate.analysis.compare.revision import Revision, open_revision
from tidegate.rules.bundle import resolution_of
from tidegate.rules.resolved import rules_bundle


def comparable(before: Revision, after: Revision) -> tuple[Revision, Revision]:
    """Return both revisions as their files compile, unless the targets of both are resolved."""
    if any(resolution_of(each.bundle.revision) is None for each in (before, after)):
        return as_files(before), as_files(after)
    return before, after


def as_files(revision: Revision) -> Revision:
    """Return a revision as its files compile: with its targets as written."""
    is_resolved = resolution_of(revision.bundle.revision) is not None
    return open_revision(rules_bundle(revision.bundle.data)) if is_resolved else revision
