"""`tidegate status`: the fleet at a glance, from the plain JSON values of its status: the headline first, then lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from tidegate.cli import progress
from tidegate.cli.columns import columns, console, count, wrapped
from tidegate.cli.json_output import print_json, write_json
from tidegate.cli.plane import run_on_plane
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, find_stack, http_address, read_fleet, resolve_settings
from tidegate.errors import TidegateError
from tidegate.rules.bundle import RESOLVED, short_revision

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane

INSPECTION_S = 20.0
"""How long a read waits for the inspection of what is live."""

SHOWN_MODELS = 8
SHOWN_LINES = 20
SHOWN_MARKS = 3

Line = tuple[str, str]
Json = Mapping[str, Any]
Read = Callable[[], Json]


@click.command()
@click.option("--url", callback=http_address, help="Gateway to ask, instead of the stores.")
@click.option("--models", is_flag=True, help="Show every model on every server.")
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval-s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between two reads."
)
@STORE_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; with --watch a line for each read.")
def status(stores: StoreOptions, url: str | None, models: bool, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show the fleet: what is live, its shards, servers and models, what stays loaded, and every problem.

    Reads the stores and asks every server. A stack on this machine, or one that --stack names, is asked directly and reports
    its processes too. Exit code 1: the fleet is not healthy, or cannot be read.
    """
    read = _reader(stores, url)
    if watch:
        _watch(read, interval_s, models=models, as_json=as_json)
        return
    fleet = read()
    if as_json:
        print_json(fleet)
    else:
        console().print(fleet_view(fleet, models=models))
    if not fleet.get("healthy", True):
        raise click.exceptions.Exit(1)


def _reader(stores: StoreOptions, url: str | None) -> Read:
    """Return what reads the fleet. Raises as `resolve_settings`."""
    if url is not None and (stores.named or stores.stack is not None):
        raise click.UsageError("--url asks a gateway: leave it out, or the options that name the stores")
    address = url or find_stack(stores)
    if address is not None:
        return lambda: read_fleet(address)
    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> Json:
        from tidegate.control.status import read_status

        return (await read_status(plane, inspection_s=INSPECTION_S)).as_dict()

    return lambda: run_on_plane(settings, work)


def _watch(read: Read, interval_s: float, *, models: bool, as_json: bool) -> None:
    """Show the fleet until Ctrl-C; a failed read is reported and repeated."""
    progress.end()
    out = console()
    live = None if as_json or not out.is_terminal else Live(console=out, auto_refresh=False, screen=True)
    try:
        if live is not None:
            live.start()
        while True:
            try:
                fleet = read()
                line, view = fleet, fleet_view(fleet, models=models)
            except TidegateError as error:
                line, view = {"ok": False, "error": str(error)}, Text(f"error: {error}", "red")
            if live is not None:
                live.update(view, refresh=True)
            elif as_json:
                write_json(line)
            else:
                out.print(view)
            time.sleep(interval_s)
    except KeyboardInterrupt:
        pass
    finally:
        if live is not None:
            live.stop()


def fleet_view(fleet: Json, *, models: bool = False) -> RenderableType:
    """Return a fleet for people; with `models` every model on every server."""
    width = columns()
    lines = [_head(fleet), *_shards(fleet, models=models), *_revisions(fleet), *_lines(fleet)]
    whole = ((line, style) for text, style in lines for line in (wrapped(text, width) if width else text.splitlines()))
    return Group(*(Text(line, style, no_wrap=True, overflow="ignore") for line, style in whole))


def _head(fleet: Json) -> Line:
    revision = fleet.get("revision")
    if revision is None:
        return "nothing is live: nothing was ever published here", "bold red"
    live = shown_revision(fleet, fleet.get("bad", ()))
    text = f"revision {live}, live since {fleet['since']}, {count(fleet['objectives'], 'objective')}"
    if "healthy" not in fleet:
        return text, "bold"
    # The verdict first, so that it is seen even where the rest is cut off.
    if not fleet["healthy"]:
        return f"NOT HEALTHY; {text}", "bold red"
    if fleet.get("rules", {}).get("last_rejected"):
        return f"healthy, but the rules as saved are refused; {text}", "bold yellow"
    if fleet.get("degraded"):
        return f"healthy, but was degraded lately; {text}", "bold yellow"
    return f"healthy; {text}", "bold green"


def _shards(fleet: Json, *, models: bool) -> Iterator[Line]:
    loads = {each["url"]: each for each in fleet.get("gateway", {}).get("endpoints", ())}
    for shard in fleet.get("shards", ()):
        ready, wanted = sum(each["state"] == "ready" for each in shard["endpoints"]), shard.get("replicas", "?")
        yield f"shard {shard['name']}: {ready} of {wanted} servers ready", "" if ready == wanted else "red"
        for each in shard["endpoints"]:
            yield from _endpoint(each, loads.get(each["url"]), models=models)


def _endpoint(each: Json, load: Json | None, *, models: bool) -> Iterator[Line]:
    there = [model for model in each["models"] if model["state"] == "READY"]
    parts = [f"  {each['url']}", f"pid {each['pid']}" if each.get("pid") else "", each["state"]]
    whole = each["state"] == "ready" and len(there) == len(each["models"])
    loaded = f"{len(there)} of {len(each['models'])} models"
    outstanding = "" if load is None else count(load["outstanding"], "request")
    yield "  ".join(filter(None, [*parts, loaded, outstanding])), "" if whole else "red"
    if each.get("note"):
        yield f"    {each['note']}", "red"
    if models:
        yield from map(_model, each["models"])
    elif there:
        yield f"    {_names(there)}", "dim"
    if load is not None:
        yield from _unusual(load)


def _unusual(load: Json) -> Iterator[Line]:
    """Yield what the gateway does not send to an endpoint as usual."""
    if load["is_down"]:
        yield "    gets no requests until it answers for its health", "red"
    for place in load["places"]:
        if place["is_open"]:
            yield f"    {place['model']}: gets no requests until it is ready, after failures", "red"
        elif place["ejected_until"] is not None:
            yield (
                f"    {place['model']}: gets no requests until {place['ejected_until']}, as others do better",
                "yellow",
            )
        elif place["share"] < 1:
            yield f"    {place['model']}: gets {place['share']:.0%} of its requests, as it came back lately", "yellow"


def _names(models: Sequence[Json]) -> str:
    names = [f"{model['name']}/{model['version']}" for model in models]
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more


def _model(model: Json) -> Line:
    needed = ", ".join(model["needed_by"]) or "nothing"
    reason = f": {model['reason']}" if model.get("reason") else ""
    text = f"    {model['name']}/{model['version']}  {model['state']}, needed by {needed}{reason}"
    return text, "" if model["state"] == "READY" else "red"


def _revisions(fleet: Json) -> Iterator[Line]:
    found = fleet.get("revisions", ())
    for each in found:
        at, why = f", {each['at']}" if each["at"] else "", f": {each['why']}" if each["why"] else ""
        yield f"loaded: {shown_revision(each, found)} ({each['reason']}) by {each['by']}{at}{why}", ""


def shown_revision(each: Json, among: Sequence[Json] = ()) -> str:
    """Return the revision of a JSON object for people, long enough to distinguish it from those `among` which it is shown."""
    return short_revision(_identity(each), map(_identity, among))


def _identity(each: Json) -> str:
    return RESOLVED.join(filter(None, (each.get("revision"), each.get("resolution"))))


def _lines(fleet: Json) -> Iterator[Line]:
    yield from ((f"degraded: {text}", "yellow") for text in fleet.get("degraded", ()))
    drift = fleet.get("drift", ())
    for each in drift[:SHOWN_LINES]:
        versions = "/" + ",".join(map(str, each["versions"])) if each.get("versions") else ""
        yield f"drift: {each['action']} {each['model']}{versions} on {each['url']} of shard {each['shard']}", "yellow"
    if len(drift) > SHOWN_LINES:
        yield f"drift: and {len(drift) - SHOWN_LINES} more; `tidegate reconcile --dry-run` has them all", "yellow"
    yield from ((f"waiting: {text}", "yellow") for text in fleet.get("waiting", ()))
    for claim in fleet.get("claims", ()):
        what = f"publishes {short_revision(claim['revision'])}" if claim["revision"] else "repairs the fleet"
        yield f"at work: {claim['by']} {what}", ""
    for gateway in fleet.get("gateways", ()):
        late = "" if _identity(gateway) == _identity(fleet) else ", which is not the live one"
        yield f"gateway {gateway['id']} serves {short_revision(gateway['revision'])}{late}", "yellow" if late else ""
    source = fleet.get("source")
    if source is not None and source["last_error"] is not None:
        yield f"the gateway cannot follow what is live ({source['state']}): {source['last_error']}", "red"
    for mark in fleet.get("bad", ())[:SHOWN_MARKS]:
        why = f": {mark['why']}" if mark["why"] else ""
        yield f"marked bad: {shown_revision(mark, [fleet])} by {mark['by']} at {mark['at']}{why}", ""
    yield from ((f"problem: {text}", "red") for text in fleet.get("problems", ()))
    yield from _following(fleet.get("follow") or {})
    rejected = fleet.get("rules", {}).get("last_rejected")
    if rejected:
        yield f"rules refused at {rejected['at']}:", "bold red"
        yield from ((f"  {line}", "") for line in rejected["findings"])


def _following(follow: Json) -> Iterator[Line]:
    """Yield how the rules directory is followed, unless it is as usual."""
    if follow.get("state") == "off":
        yield "following: off; changes of the rules are not published", ""
    if follow.get("ended"):
        yield f"following: ended ({follow['ended']}); changes are not published until the stack is restarted", "red"
    if follow.get("paused"):
        yield f"following: {paused_text(follow['paused'])}", "yellow"
        changed = follow.get("unpublished_at")
        what = f"the rules changed at {changed} and are not published; " if changed else ""
        yield f"  {what}`tidegate follow resume` publishes the directory and follows it again", "yellow"


def paused_text(paused: Mapping[str, Any]) -> str:
    """Return since when and why following is paused, from the JSON of a stack."""
    why = f": {paused['why']}" if paused["why"] else ""
    if paused["action"] == "pause":
        return f"paused since {paused['at']} by {paused['by']}{why}"
    made = f"{paused['by']} made revision {short_revision(paused['revision'])} live"
    return f"paused since {paused['at']}, because {made} ({paused['action']}{why})"
