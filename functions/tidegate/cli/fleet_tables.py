"""Shows a fleet to people, from the plain JSON values of its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tidegate.rules.bundle import RESOLVED, short_revision

PLAIN_WIDTH = 200
"""Columns where the output is no terminal, so that nothing is cut for a file or another program."""

SHOWN_MODELS = 8
SHOWN_LINES = 20
SHOWN_MARKS = 3

Json = Mapping[str, Any]


def console() -> Console:
    """A console for results, whose text is printed as it is."""
    found = Console(highlight=False, markup=False)
    if not found.is_terminal:
        found.width = PLAIN_WIDTH
    return found


def table(*columns: str) -> Table:
    """A table whose cells are folded and never cut."""
    found = Table()
    for column in columns:
        found.add_column(column, overflow="fold")
    return found


def fleet_view(fleet: Json, *, models: bool = False) -> RenderableType:
    """A fleet at a glance; with `models` every model on every server."""
    parts: list[RenderableType] = [_head(fleet)]
    if fleet.get("shards"):
        parts.append(_models(fleet["shards"]) if models else _endpoints(fleet["shards"]))
    if fleet.get("revisions"):
        parts.append(_revisions(fleet["revisions"]))
    parts += [Text(line, style) for line, style in _lines(fleet)]
    return Group(*parts)


def _head(fleet: Json) -> Text:
    revision = fleet.get("revision")
    if revision is None:
        return Text("nothing is live: nothing was ever published here", "bold red")
    text = Text(f"revision {revision[:12]}, live since {fleet['since']}, {fleet['objectives']} objectives", "bold")
    if "well" in fleet:
        text.append("; the fleet is well" if fleet["well"] else "; NOT WELL", "green" if fleet["well"] else "bold red")
    return text


def _endpoints(shards: Sequence[Json]) -> Table:
    found = table("shard", "servers", "endpoint", "pid", "state", "ready", "models", "note")
    for shard in shards:
        ready = sum(each["state"] == "ready" for each in shard["endpoints"])
        head = [shard["name"], f"{ready} of {shard.get('replicas', '?')}"]
        if not shard["endpoints"]:
            found.add_row(*head, "-", "-", "-", "-", "-", "no server")
        for each in shard["endpoints"]:
            there = [model for model in each["models"] if model["state"] == "READY"]
            found.add_row(
                *head,
                each["url"],
                str(each["pid"] or "-"),
                Text(each["state"], "" if each["state"] == "ready" else "red"),
                Text(f"{len(there)} of {len(each['models'])}", "" if len(there) == len(each["models"]) else "red"),
                _names(there),
                each.get("note", ""),
            )
            head = ["", ""]
    return found


def _names(models: Sequence[Json]) -> str:
    names = [f"{model['name']}/{model['version']}" for model in models]
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more


def _models(shards: Sequence[Json]) -> Table:
    found = table("shard", "endpoint", "model", "version", "state", "needed by", "reason")
    for shard in shards:
        for each in shard["endpoints"]:
            head = [shard["name"], each["url"]]
            for model in each["models"]:
                state = Text(model["state"], "" if model["state"] == "READY" else "red")
                needed = ", ".join(model["needed_by"]) or "nobody"
                found.add_row(*head, model["name"], str(model["version"]), state, needed, model.get("reason", ""))
                head = ["", ""]
    return found


def _revisions(revisions: Sequence[Json]) -> Table:
    found = table("revision", "loaded as", "by", "at", "why")
    for each in revisions:
        found.add_row(shown_revision(each, revisions), each["reason"], each["by"], each["at"] or "-", each["why"])
    return found


def shown_revision(each: Json, among: Sequence[Json] = ()) -> str:
    """The revision of a JSON object for people; `among` are those that it stands beside."""
    return short_revision(_identity(each), map(_identity, among))


def _identity(each: Json) -> str:
    return RESOLVED.join(filter(None, (each.get("revision"), each.get("resolution"))))


def _lines(fleet: Json) -> Iterator[tuple[str, str]]:
    """What else is to be reported, with its style."""
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
    rejected = fleet.get("rules", {}).get("last_rejected")
    if rejected:
        yield f"rules refused at {rejected['at']}:", "bold red"
        yield from ((f"  {line}", "") for line in rejected["findings"])
