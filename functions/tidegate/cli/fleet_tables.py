"""Shows a fleet to people, from the plain JSON values of its status: the headline first, then lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tidegate.cli.columns import columns, wrapped
from tidegate.cli.models.options import count
from tidegate.rules.bundle import RESOLVED, short_revision

SHOWN_MODELS = 8
SHOWN_LINES = 20
SHOWN_MARKS = 3

Json = Mapping[str, Any]
Line = tuple[str, str]
"""A line of text, and its style."""


def fleet_view(fleet: Json, *, models: bool = False) -> RenderableType:
    """A fleet at a glance; with `models` every model on every server."""
    width = columns()
    lines = [_head(fleet), *_shards(fleet.get("shards", ()), models=models), *_revisions(fleet), *_lines(fleet)]
    whole = ((line, style) for text, style in lines for line in (wrapped(text, width) if width else text.splitlines()))
    return Group(*(Text(line, style, no_wrap=True, overflow="ignore") for line, style in whole))


def _head(fleet: Json) -> Line:
    revision = fleet.get("revision")
    if revision is None:
        return "nothing is live: nothing was ever published here", "bold red"
    text = f"revision {revision[:12]}, live since {fleet['since']}, {count(fleet['objectives'], 'objective')}"
    if "well" not in fleet:
        return text, "bold"
    # The verdict first: whatever is cut off or scrolls by, it is seen.
    if not fleet["well"]:
        return f"NOT WELL; {text}", "bold red"
    if fleet.get("rules", {}).get("last_rejected"):
        return f"the fleet is well, but the rules as saved are refused; {text}", "bold yellow"
    if fleet.get("degraded"):
        return f"the fleet is well, but was degraded lately; {text}", "bold yellow"
    return f"the fleet is well; {text}", "bold green"


def _shards(shards: Sequence[Json], *, models: bool) -> Iterator[Line]:
    for shard in shards:
        ready, wanted = sum(each["state"] == "ready" for each in shard["endpoints"]), shard.get("replicas", "?")
        yield f"shard {shard['name']}: {ready} of {wanted} servers ready", "" if ready == wanted else "red"
        for each in shard["endpoints"]:
            yield from _endpoint(each, models=models)


def _endpoint(each: Json, *, models: bool) -> Iterator[Line]:
    there = [model for model in each["models"] if model["state"] == "READY"]
    parts = [f"  {each['url']}", f"pid {each['pid']}" if each.get("pid") else "", each["state"]]
    whole = each["state"] == "ready" and len(there) == len(each["models"])
    loaded = f"{len(there)} of {len(each['models'])} models"
    yield "  ".join(filter(None, [*parts, loaded])), "" if whole else "red"
    if each.get("note"):
        yield f"    {each['note']}", "red"
    if models:
        yield from map(_model, each["models"])
    elif there:
        yield f"    {_names(there)}", "dim"


def _names(models: Sequence[Json]) -> str:
    names = [f"{model['name']}/{model['version']}" for model in models]
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more


def _model(model: Json) -> Line:
    needed = ", ".join(model["needed_by"]) or "nobody"
    reason = f": {model['reason']}" if model.get("reason") else ""
    text = f"    {model['name']}/{model['version']}  {model['state']}, needed by {needed}{reason}"
    return text, "" if model["state"] == "READY" else "red"


def _revisions(fleet: Json) -> Iterator[Line]:
    found = fleet.get("revisions", ())
    for each in found:
        at, why = f", {each['at']}" if each["at"] else "", f": {each['why']}" if each["why"] else ""
        yield f"loaded: {shown_revision(each, found)} ({each['reason']}) by {each['by']}{at}{why}", ""


def shown_revision(each: Json, among: Sequence[Json] = ()) -> str:
    """The revision of a JSON object for people; `among` are those that it stands beside."""
    return short_revision(_identity(each), map(_identity, among))


def _identity(each: Json) -> str:
    return RESOLVED.join(filter(None, (each.get("revision"), each.get("resolution"))))


def _lines(fleet: Json) -> Iterator[Line]:
    """What else is to be reported."""
    yield from ((f"degraded: {text}", "yellow") for text in fleet.get("degraded", ()))
    drift = fleet.get("drift", ())
    for each in drift[:SHOWN_LINES]:
        versions = "/" + ",".join(map(str, each["versions"])) if each.get("versions") else ""
        yield f"drift: {each['action']} {each['model']}{versions} on {each['url']} of shard {each['shard']}", "yellow"
    if len(drift) > SHOWN_LINES:
        yield f"drift: and {len(drift) - SHOWN_LINES} more; `tidegate reconcile --dry-run` has them all", "yellow"
    yield from ((f"waiting: {text}", "yellow") for text in fleet.get("waiting", ()))
    for claim in fleet.get("claims", ()):
        what = f"publishes {claim['revision'][:12]}" if claim["revision"] else "repairs the fleet"
        yield f"at work: {claim['by']} {what}", ""
    for gateway in fleet.get("gateways", ()):
        late = "" if _identity(gateway) == _identity(fleet) else ", which is not the live one"
        yield f"gateway {gateway['id']} serves {gateway['revision'][:12]}{late}", "yellow" if late else ""
    source = fleet.get("source")
    if source is not None and source["last_error"] is not None:
        yield f"the gateway cannot follow what is live ({source['state']}): {source['last_error']}", "red"
    for mark in fleet.get("bad", ())[:SHOWN_MARKS]:
        why = f": {mark['why']}" if mark["why"] else ""
        yield f"marked bad: {mark['revision'][:12]} by {mark['by']} at {mark['at']}{why}", ""
    yield from ((f"problem: {text}", "red") for text in fleet.get("problems", ()))
    yield from _following(fleet.get("follow") or {})
    rejected = fleet.get("rules", {}).get("last_rejected")
    if rejected:
        yield f"rules refused at {rejected['at']}:", "bold red"
        yield from ((f"  {line}", "") for line in rejected["findings"])


def _following(follow: Json) -> Iterator[tuple[str, str]]:
    """How a stack's rules directory is followed, where it is not as usual."""
    from tidegate.cli.follow import paused_text

    if follow.get("state") == "off":
        yield "following: off; changes of the rules are not published", ""
    if follow.get("ended"):
        yield f"following: ended ({follow['ended']}); changes are not published until the stack is restarted", "red"
    if follow.get("paused"):
        yield f"following: {paused_text(follow['paused'])}", "yellow"
        changed = follow.get("unpublished_at")
        what = f"the rules changed at {changed} and are not published; " if changed else ""
        yield f"  {what}`tidegate follow resume` publishes the directory and goes on", "yellow"
