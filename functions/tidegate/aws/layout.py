"""Where everything is in the bucket and in the registry's table. No boto3 here: the gateway's function reads this too."""

from __future__ import annotations

import re

from tidegate.errors import BundleError

MODELS = "models/"
"""Triton's own repository layout, served as `s3://<bucket>/models`; nothing else is below it."""

MANIFESTS = "manifests/"
"""Commit markers of pushed units: `manifests/<model>/config.json` and `manifests/<model>/<version>.json`."""

PUSHES = "pushes/"
"""What a push under way means to write, by unit as in `manifests/`."""

SAMPLES = "samples/"
BUNDLES = "bundles/"
ASSIGNMENTS = "assignments/"
HISTORY = "history/"
CLAIMS = "claims/"
POINTER = "live/pointer.json"

RULES = "rules/"
"""Archives of rules that are uploaded to be judged: `rules/<name>.zip`."""

ARCHIVE_SUFFIX = ".zip"
VERDICTS = "verdicts/"
"""What was found out about them: `verdicts/<name>.json`. Not below `RULES`, so that no verdict starts the judge."""

PARTITION_KEY, SORT_KEY, EXPIRY = "pk", "sk", "expires_at"
"""The attributes of both tables that DynamoDB itself looks at; the table of facts has no expiry."""

ENDPOINTS, GATEWAYS, ONCE = "endpoint#", "gateway", "once#"
"""The partitions of the registry's table: `endpoint#<shard>`, `gateway`, `once#<function>`. Each has one kind of writer, so
that the condition `dynamodb:LeadingKeys` can hold every role to its own."""

FACT_VALUE = "value"
"""The attribute of the table of facts that holds a fact as JSON text; its partition key is the fact's key, its sort key
the name of the set of facts."""

_REVISION = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{64})?")
_UNIT = re.compile(r"(?P<model>[^/]+)/(?P<unit>config|[1-9][0-9]{0,17})\.json")


def model_key(model: str, path: str = "") -> str:
    """The key of a model's file; without a path, what the keys of all its files begin with."""
    return f"{MODELS}{model}/{path}"


def unit_key(prefix: str, model: str, version: int | None) -> str:
    """The key of a unit's marker below `MANIFESTS` or `PUSHES`."""
    return f"{prefix}{model}/{'config' if version is None else version}.json"


def parse_unit(prefix: str, key: str) -> tuple[str, int | None] | None:
    """The model and the version that a marker's key names; None for another key."""
    match = _UNIT.fullmatch(key.removeprefix(prefix))
    if match is None:
        return None
    return match["model"], None if match["unit"] == "config" else int(match["unit"])


def verdict_key(archive_key: str) -> str:
    """The key of the verdict on the archive `rules/<name>.zip`."""
    return f"{VERDICTS}{archive_key.removeprefix(RULES).removesuffix(ARCHIVE_SUFFIX)}.json"


def bundle_key(revision: str) -> str:
    """The key of a bundle.

    Raises:
        BundleError: `revision` is none.
    """
    return BUNDLES + _checked(revision)


def assignment_key(revision: str) -> str:
    """The key of an assignment.

    Raises:
        BundleError: `revision` is none.
    """
    return f"{ASSIGNMENTS}{_checked(revision)}.json"


def history_key(sequence: int) -> str:
    """The key of a flip; keys sort as the flips happened."""
    return f"{HISTORY}{sequence:010d}.json"


def is_revision(text: str) -> bool:
    """Whether a text is what a revision looks like."""
    return _REVISION.fullmatch(text) is not None


def _checked(revision: str) -> str:
    if not is_revision(revision):
        raise BundleError(f"{revision[:64]!r} is no revision: 64 hexadecimal digits, or twice 64 with a point between")
    return revision
