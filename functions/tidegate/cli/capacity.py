"""`tidegate capacity`: cores, environments, servers and dollars for some traffic, and what breaks first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.capacity.figures import CURVES, MEASURED, NUMBERS, OPTIONAL, Figures, read_figures
from tidegate.capacity.limits import Use
from tidegate.capacity.planes import BASE64_MS_PER_MB, PROXY_CORES, PROXY_INSTANCE, Load, Plane, planes
from tidegate.capacity.prices import PER_INSTANCE_HOUR, PRICE_DATE, PRICE_REGION, SOURCES
from tidegate.cli.columns import say, show_table
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.errors import SettingsError

if TYPE_CHECKING:
    _Float = click.ParamType[float]
else:
    _Float = click.ParamType

RESOLVER_US = 100
"""Assumed where no benchmark measured it."""

MOST_RPS = 1_000_000
SHOWN_LIMITS = 2
_UNITS = {"": 1, "b": 1, "kb": 1_000, "mb": 1_000_000, "kib": 1 << 10, "mib": 1 << 20}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
MOST_BYTES = 1e9
# A comma elsewhere may be the decimal point of somebody's language.
_GROUPED = re.compile(r"\d{1,3}(?:[,_]\d{3})+(?:\.\d*)?", re.ASCII)


class Size(_Float):
    """A number of bytes, such as `1kB`, `4.5MB`, `1MiB` or `512`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        unit = _UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            self.fail(
                f"{value!r} is not a size: write bytes, or a number with kB, MB, KiB or MiB, such as 1kB", param, ctx
            )
        size = float(found[1]) * unit
        if size > MOST_BYTES:
            self.fail(f"{value!r} is more than 1 GB", param, ctx)
        return size


class Number(_Float):
    """A number in a range; commas or underscores may group its thousands."""

    name = "number"

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            number = float(re.sub("[,_]", "", text) if _GROUPED.fullmatch(text) else text)
        except ValueError:
            number = math.nan
        if not self._least <= number <= self._most:
            self.fail(f"{value!r} is not a number from {self._least:g} to {self._most:,.0f}", param, ctx)
        return number


@click.command()
@click.option("--rps", type=Number(0.001, MOST_RPS), required=True, help="Requests per second at the peak.")
@click.option(
    "--objectives", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Number of objectives."
)
@click.option(
    "--rules", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Rules of each objective."
)
@click.option("--body", "body_bytes", type=Size(), default="1kB", show_default=True, help="Size of a request.")
@click.option("--answer", "answer_bytes", type=Size(), help="Size of an answer. Default: that of a request.")
@click.option(
    "--model-ms", type=Number(0, 3_600_000), default=20, show_default=True, help="Time of a request in Triton."
)
@click.option(
    "--triton-rps",
    type=Number(0.001, 1e6),
    default=300,
    show_default=True,
    help="Requests per second that one Triton can answer.",
)
@click.option("--triton-instance", default="g4dn.xlarge", show_default=True, help="Its instance type.")
@click.option(
    "--triton-price", type=Number(0, 10_000), help="Dollars an hour of that type. Default: by the price table."
)
@click.option("--shards", type=click.IntRange(1, 100_000), default=2, show_default=True, help="Number of shards.")
@click.option(
    "--utilization",
    type=Number(0.01, 1),
    default=0.6,
    show_default=True,
    help="Part of a core or a server that may be used.",
)
@click.option("--memory-mib", type=Number(128, 10_240), default=1769, show_default=True, help="Memory of the function.")
@click.option("--poll-s", type=Number(0.05, 3600), default=2, show_default=True, help="TIDEGATE_POLL_INTERVAL_S.")
@click.option("--report-s", type=Number(0.1, 3600), default=10, show_default=True, help="TIDEGATE_REPORT_INTERVAL_S.")
@click.option(
    "--cached", is_flag=True, help="Functions read the pointer from shard agents (TIDEGATE_POINTER_CACHE_URL)."
)
@click.option(
    "--callers",
    type=click.IntRange(1, 10_000_000),
    default=100,
    show_default=True,
    help="Processes of callers that decide by themselves.",
)
@click.option(
    "--log-bytes", type=Number(0, 1e6), default=2000, show_default=True, help="Bytes of logs for each request."
)
@click.option(
    "--resolver-us",
    type=Number(0, 1e6),
    help=f"CPU time of a resolver for each decision. Default: what was measured, else {RESOLVER_US}.",
)
@click.option(
    "--figures",
    type=click.Path(dir_okay=False, path_type=Path),
    default=MEASURED,
    help="JSON of measured figures. Default: those of docs/performance.md.",
)
@AS_JSON
def capacity(
    figures: Path,
    triton_price: float | None,
    answer_bytes: float | None,
    body_bytes: float,
    resolver_us: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Calculate cores, environments, servers, reads of the store and dollars for some traffic, on each data plane, and what
    breaks first.

    Figures are those that benchmarks measured, on the machine that is shown, prices and quotas those of AWS's pages, on the
    date that is shown. docs/scale.md has the formulae.
    """
    try:
        measured = read_figures(figures)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--figures") from error
    instance = options["triton_instance"]
    price = PER_INSTANCE_HOUR.get(instance) if triton_price is None else triton_price
    if price is None:
        raise click.BadParameter(
            f"the price of {instance!r} is not known: give --triton-price, or one of {', '.join(sorted(PER_INSTANCE_HOUR)[:4])}, …",
            param_hint="--triton-instance",
        )
    load = Load(
        body_bytes=body_bytes,
        answer_bytes=body_bytes if answer_bytes is None else answer_bytes,
        triton_dollars_per_hour=price,
        resolver_us=measured.numbers.get("resolver_us", RESOLVER_US) if resolver_us is None else resolver_us,
        **options,
    )
    found = planes(load, measured)
    if as_json:
        print_json(_json(load, measured, found))
    else:
        _show(load, measured, found)


def assumptions(load: Load, measured: Figures) -> Iterator[str]:
    """Yield what the result rests on beside what was measured."""
    yield f"prices: list prices of {PRICE_REGION} of {PRICE_DATE}, in US dollars; quotas: the defaults of an account"
    yield f"one vCPU does what one core of the benchmarks' machine does ({measured.measured['gateway_us']})"
    yield f"cores and Tritons are used to {load.utilization:.0%}, environments one request at a time"
    yield (
        f"one Triton answers {load.triton_rps:g} requests/s, each in {load.model_ms:g} ms, on {load.triton_instance} for "
        f"${load.triton_dollars_per_hour:g}/h: measure yours"
    )
    yield f"proxies run on {PROXY_INSTANCE} ({PROXY_CORES} vCPUs), one process on each"
    yield f"a function spends {BASE64_MS_PER_MB} ms for each MB of request and answer on base64"
    yield f"logs: {load.log_bytes:g} bytes for each request; the SDK's callers keep their own"
    if measured.numbers.get("resolver_us") != load.resolver_us:
        yield f"the resolver's {load.resolver_us:g} µs are assumed, and were not measured"
    yield "not included: traffic between zones and out of the region, tax, support, metrics, storage"


def _json(load: Load, measured: Figures, found: Any) -> dict[str, Any]:
    members = {name: getattr(load, name) for name in Load.__slots__}
    return {
        "load": members,
        "figures": {
            name: {
                "what": what,
                "value": measured.curves.get(name, measured.numbers.get(name)),
                "measured": measured.measured[name],
            }
            for name, what in {**CURVES, **NUMBERS, **OPTIONAL}.items()
            if name in measured.measured
        },
        "prices": {"date": PRICE_DATE, "region": PRICE_REGION, "sources": SOURCES},
        "planes": [plane.as_dict(load.rps) for plane in found],
        "assumptions": list(assumptions(load, measured)),
    }


def _show(load: Load, measured: Figures, found: Any) -> None:
    figures = ("cores", "environments", "servers", "Tritons", "store reads/s", "added ms", "$ a million")
    rows = [
        (
            plane.name,
            f"{plane.cores:,.1f}" if plane.cores else "-",
            f"{plane.environments:,}" if plane.environments else "-",
            f"{plane.servers:,}" if plane.servers else "-",
            f"{plane.tritons:,}",
            f"{plane.reads_per_s:,.1f}",
            "-" if plane.added_ms is None else f"{plane.added_ms:.2f}",
            f"{plane.dollars_per_million:,.2f}",
        )
        for plane in found
    ]
    show_table(("data plane", *figures), rows, figures)
    for plane in found:
        say("")
        say(f"{plane.name}: ${plane.dollars_per_million:,.2f} a million = {_sum(plane)}")
        for note in plane.notes:
            say(f"  {note}")
        for use in plane.breaks[:SHOWN_LIMITS]:
            say(f"  {_breaks(use, load.rps)}")
        for use in plane.breaks[SHOWN_LIMITS:]:
            if use.exceeded:
                say(f"  {_breaks(use, load.rps)}")
    say("\nassumed:")
    for assumption in assumptions(load, measured):
        say(f"  {assumption}")


def _sum(plane: Plane) -> str:
    items = sorted(plane.dollars.items(), key=lambda item: -item[1])
    return " + ".join(f"{dollars:,.4g} {item}" for item, dollars in items if dollars >= 0.00005)


def _breaks(use: Use, rps: float) -> str:
    at = use.breaks_at(rps)
    state = "EXCEEDED" if use.exceeded else "within"
    when = "" if at is None else f"; breaks at {at:,.0f} requests/s"
    can = "cannot be raised" if use.quota.fixed else "can be raised"
    return f"{state}: {use.quota.name}: {use.used:,.1f} of {use.quota.limit:,.0f}, {can}{when}"
