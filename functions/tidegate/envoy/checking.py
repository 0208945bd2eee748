"""Has Envoy check a configuration: the files that it follows are part of it, which `--mode validate` alone does not read."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from tidegate.envoy.clusters import assignment, clusters
from tidegate.envoy.config import EnvoyOptions, bootstrap, route_file
from tidegate.envoy.filters import Json
from tidegate.envoy.fleet import Fleet
from tidegate.envoy.plans import RPC, cluster_of, shapes
from tidegate.errors import StackError
from tidegate.rules import Engine

LONGEST_S = 60
_SHOWN = 2_000


def check(program: Path, engine: Engine, fleet: Fleet, options: EnvoyOptions) -> None:
    """Check a configuration with everything in one file.

    Raises:
        StackError: Envoy refuses it, and the message has its reason; or it is not Envoy.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "envoy.json")
        file.write_text(json.dumps(_whole(engine, fleet, options)))
        command = [str(program), "--mode", "validate", "-c", str(file), "--log-level", "error"]
        try:
            done = subprocess.run(  # noqa: S603  # what the operator named
                command, capture_output=True, text=True, timeout=LONGEST_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"{program} cannot check the configuration: {error}") from error
    if done.returncode:
        reason = (done.stderr + done.stdout).strip()[-_SHOWN:] or f"it ended with {done.returncode}"
        raise StackError(f"Envoy ({program}) refuses the configuration: {reason}")
    if f"'{file}' OK" not in done.stdout:
        raise StackError(f"{program} does not say whether the configuration is valid: is it Envoy?")


def _whole(engine: Engine, fleet: Fleet, options: EnvoyOptions) -> Json:
    found = bootstrap(options)
    del found["dynamic_resources"], found["admin"]
    static = found["static_resources"]
    needed = shapes(engine)
    ends = {
        (RPC if is_rpc else "") + cluster_of(shape): assignment(shape, fleet, is_rpc=is_rpc)
        for shape in needed
        for is_rpc in (False, True)
    }
    for each in clusters(needed, fleet, "/", options.connect_timeout_ms, rpc=options.rpc):
        if each.pop("eds_cluster_config", None) is not None:
            each |= {"type": "STATIC", "load_assignment": ends[each["name"]]}
        static["clusters"].append(each)
    manager = static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    routes = {key: value for key, value in route_file(engine, options)["resources"][0].items() if key != "@type"}
    manager["route_config"] = routes | {"validate_clusters": True}
    return found
