"""Keys in the bucket and the tables. This module imports no boto3, as the gateway's function uses it too."""

from __future__ import annotations

import re

from tidegate.errors import BundleError
from tidegate.model_layout import VERSION

MODELS = "models/"
"""Triton's own repository layout, which servers read as `s3://<bucket>/models`."""

MANIFESTS = "manifests/"
"""Commit markers of pushed units: `manifests/<model>/config.json` and `manifests/<model>/<version>.json`."""

PUSHES = "pushes/"
"""Intents of pushes, with keys as in `manifests/`."""

SAMPLES = "samples/"
BUNDLES = "bundles/"
ASSIGNMENTS = "assignments/"
HISTORY = "history/"
CLAIMS = "claims/"
POINTER = "live/pointer.json"

RULES = "rules/"
"""Archives of rules that are uploaded for validation: `rules/<name>.zip`."""

ARCHIVE_SUFFIX = ".zip"
VERDICTS = "verdicts/"
"""The verdicts on them: `verdicts/<name>.json`, outside `RULES`, so that no verdict starts the validator."""

SHADOW_TALLIES = "shadows/tallies/"
"""Differences of shadows' answers: `shadows/tallies/<hour>/<writer>.json`; see `shadow_tallies`."""

SHADOW_COPIES = "shadows/copies/"
"""Copies of requests for shadows that are too large for a message; a lifecycle rule deletes them."""

PARTITION_KEY, SORT_KEY, EXPIRY = "pk", "sk", "expires_at"
"""The attributes of both tables with a meaning to DynamoDB; the table of facts has no expiry."""

ENDPOINTS, GATEWAYS, ONCE = "endpoint#", "gateway", "once#"
"""The partitions of the registry's table: `endpoint#<shard>`, `gateway`, `once#<function>`. Each has one kind of writer, and the
condition `dynamodb:LeadingKeys` restricts every role to its own."""

FACT_VALUE = "value"
"""The attribute with a fact as JSON text; the partition key is the fact's key, the sort key the name of its set."""

_REVISION = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{64})?")
_UNIT = re.compile(rf"(?P<model>[^/]+)/(?P<unit>config|{VERSION})\.json")


def model_key(model: str, path: str = "") -> str:
    """Return the key of a model's file, or the prefix of all its files."""
    return f"{MODELS}{model}/{path}"


def unit_key(prefix: str, model: str, version: int | None) -> str:
    """Return the key of a unit's marker below `MANIFESTS` or `PUSHES`."""
    return f"{prefix}{model}/{'config' if version is None else version}.json"


def parse_unit(prefix: str, key: str) -> tuple[str, int | None] | None:
    """Return the unit of a marker's key, or None for another key."""
    match = _UNIT.fullmatch(key.removeprefix(prefix))
    if match is None:
        return None
    return match["model"], None if match["unit"] == "config" else int(match["unit"])


def verdict_key(archive_key: str) -> str:
    return f"{VERDICTS}{archive_key.removeprefix(RULES).removesuffix(ARCHIVE_SUFFIX)}.json"


def bundle_key(revision: str) -> str:
    """Return the key of a bundle. Raises `BundleError` for a malformed revision."""
    return BUNDLES + _checked(revision)


def assignment_key(revision: str) -> str:
    """Return the key of an assignment. Raises `BundleError` for a malformed revision."""
    return f"{ASSIGNMENTS}{_checked(revision)}.json"


def history_key(sequence: int) -> str:
    """Return the key of a flip; keys sort by sequence."""
    return f"{HISTORY}{sequence:010d}.json"


def is_revision(text: str) -> bool:
    return _REVISION.fullmatch(text) is not None


def _checked(revision: str) -> str:
    if not is_revision(revision):
        raise BundleError(
            f"{revision[:64]!r} is not a revision: 64 hexadecimal digits, or two times 64 joined by a point"
        )
    return revision
