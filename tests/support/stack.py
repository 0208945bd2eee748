"""Runs the real `tidegate up` as a user does, over rules and models that a test writes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tidegate import stack_file
from tidegate.stack_file import StackFile
from tidegate.triton.repository import MANAGEMENT

from tests.support.parts import need
from tests.support.processes import end

ROOT = Path(__file__).parents[2]

REPOSITORIES = ROOT / "tests" / "repositories"
# Far above what is usual: a machine may be three times slower, and busy with three stacks.
READY_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
TIMEOUT_MS = 60_000
SHARED_MEMORY = Path("/dev/shm")
FLEET = "/v1/fleet"
LATE = re.compile(r"the stores or a server did not answer within|did not answer within \S+ s; all else here is as of")
"""Why a report of the fleet is an earlier one, or none."""

NOTHING: Mapping[str, str] = MappingProxyType({})
PATIENT: Mapping[str, str] = MappingProxyType(
    {
        "TIDEGATE_SERVER_START_TIMEOUT_S": "180",
        "TIDEGATE_LOAD_TIMEOUT_S": "120",
        "TIDEGATE_STORE_TIMEOUT_S": "20",
    }
)
"""Settings of stacks and commands whose servers, models and stores are healthy, on a slow and busy machine."""

_PREFIX = re.compile(r"shm-region-prefix-name=(\S+)")


@dataclass(slots=True)
class Server:
    """A `tritonserver` process of a stack: what must be gone when the stack is."""

    pid: int
    prefix: str

    def leftovers(self) -> list[str]:
        """Processes of its group that still run, and shared memory that still stands."""
        processes = [f"process {pid}" for pid in _processes() if _group(pid) == self.pid]
        return processes + [path.name for path in SHARED_MEMORY.glob(f"{self.prefix}*")]


class RunningStack:
    """A `tidegate up` process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.url = ""
        self.output = ""
        self._log = log
        self._seen: dict[int, Server] = {}

    @property
    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return self._log.read_text()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> RunningStack:
        """Wait for the line `ready http://…`."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        self.output = self.process.stdout.readline().decode() if readable else ""
        match = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", self.output)
        assert match, f"not ready: {self.output!r}\n{self.errors}"
        self.url = match[1]
        return self

    def wait_exit(self, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Wait for the end of the process; its exit code."""
        assert self.process.stdout is not None
        code = self.process.wait(timeout_s)
        self.output += self.process.stdout.read().decode()
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and wait for its end; its exit code."""
        self.servers()
        self.process.send_signal(number)
        return self.wait_exit(STOP_TIMEOUT_S)

    def servers(self) -> list[Server]:
        """The `tritonserver` processes that run now."""
        running = [Server(pid, prefix[1]) for pid in _processes() if (prefix := _child_prefix(pid, self.process.pid))]
        self._seen |= {server.pid: server for server in running}
        return running

    def leftovers(self) -> list[str]:
        """What is left of every server that `servers` or `stop` ever saw."""
        return [entry for server in self._seen.values() for entry in server.leftovers()]

    @property
    def known(self) -> StackFile:
        """What the stack has written for commands of its user."""
        found = stack_file.find(self.url)
        assert found is not None, self.errors
        return found

    def get(self, path: str, *, late: bool = False) -> Any:
        """The JSON that a GET answers; operators' paths are asked for as an operator does.

        A stack that is too busy to look at its fleet in time gives what it saw before, and says so. It is asked again then,
        until what it gives was seen after the call, unless `late` takes that too.
        """
        token = {"Authorization": f"Bearer {self.known.operator_token}"} if path == FLEET else {}

        def answer() -> Any:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=token), timeout=30) as response:
                return json.load(response)

        found = answer()
        seen: list[str] = []

        def is_current() -> bool:
            nonlocal found
            if not is_late(found):
                return True
            # The look that ends first may have begun before the call.
            seen.extend({found["as_of"]} - {None, *seen})
            if len(seen) > 2:
                return True
            found = answer()
            return False

        assert late or path != FLEET or eventually(is_current), found
        return found

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a POST."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def unload(self, server: str, model: str) -> None:
        """Unload a model from a server, behind the control plane's back."""
        secret = {MANAGEMENT: self.known.management_secret}
        address = f"{server}/v2/repository/models/{model}/unload"
        request = urllib.request.Request(address, data=b"{}", headers=secret, method="POST")
        urllib.request.urlopen(request, timeout=20).close()

    def version(self, objective: str, sleep_ms: int = 0, **context: Any) -> int:
        """Which version of the model `versioned` serves an objective."""
        tensor = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [sleep_ms]}
        headers = {"Tidegate-Context": json.dumps(context)}
        status, answer = self.post(f"/v2/models/{objective}/infer", {"inputs": [tensor]}, headers)
        assert status == 200, answer
        return int(answer["outputs"][0]["data"][0])

    def fleet(self) -> dict[str, list[dict[str, Any]]]:
        """The endpoints of each shard, as `/v1/fleet` describes them."""
        return {shard["name"]: shard["endpoints"] for shard in self.get("/v1/fleet")["shards"]}

    def models(self, shard: str) -> list[set[str]]:
        """What is READY on each endpoint of a shard, as `name/version`."""
        return ready(self.get("/v1/fleet"), shard)


def is_late(fleet: Mapping[str, Any]) -> bool:
    """Whether a report of the fleet is an earlier one, since the stores or servers did not answer in time."""
    return any(LATE.search(problem) for problem in fleet["problems"])


def ready(fleet: Mapping[str, Any], shard: str) -> list[set[str]]:
    """What is READY on each endpoint of a shard by what `/v1/fleet` answered, as `name/version`."""
    return [
        {f"{model['name']}/{model['version']}" for model in endpoint["models"] if model["state"] == "READY"}
        for each in fleet["shards"]
        if each["name"] == shard
        for endpoint in each["endpoints"]
    ]


@contextlib.contextmanager
def started_stack(
    rules: Path, models: Path, log: Path, *arguments: str, variables: Mapping[str, str] = NOTHING
) -> Iterator[RunningStack]:
    """Start `tidegate up` on a free port and do not wait; it is gone afterwards, whatever happens."""
    need("pytriton")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment |= {"TIDEGATE_CACHE_DIR": str(ROOT / ".cache" / "tidegate"), "PYTHONPATH": str(ROOT / "functions")}
    environment |= {**PATIENT, **variables}
    command = [sys.executable, "-m", "tidegate.cli", "up", "--rules", str(rules), "--models", str(models)]
    command += [] if "--port" in arguments else ["--port", "0"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=ROOT
        )
    stack = RunningStack(process, log)
    try:
        yield stack
    finally:
        end(process, STOP_TIMEOUT_S)


@contextlib.contextmanager
def running_stack(
    rules: Path, models: Path, log: Path, *arguments: str, variables: Mapping[str, str] = NOTHING
) -> Iterator[RunningStack]:
    """Run `tidegate up` over a rules directory and a model repository, and wait until it is ready.

    Args:
        rules: the rules directory.
        models: the model repository.
        log: the file that gets what it writes to standard error.
        arguments: further options of `tidegate up`.
        variables: settings of the stack, as environment variables.
    """
    with started_stack(rules, models, log, *arguments, variables=variables) as stack:
        yield stack.wait_ready()


def make_repository(target: Path, *names: str) -> Path:
    """A model repository with copies of models from `tests/repositories`."""
    for name in names:
        (source,) = REPOSITORIES.glob(f"*/{name}")
        shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def write_rules(
    target: Path, shards: Mapping[str, int | Mapping[str, Any]], placement: Mapping[str, list[str]], **objectives: str
) -> Path:
    """A rules directory: replicas (or all that fleet.yaml says) by shard, shards by model, and by objective what is served,
    in YAML or as a target.

    Every objective has the optional attribute `country`.
    """
    (target / "objectives").mkdir(parents=True, exist_ok=True)
    fleet = {
        "shards": {name: {"replicas": each} if isinstance(each, int) else dict(each) for name, each in shards.items()},
        "models": {name: {"shards": on} for name, on in placement.items()},
    }
    (target / "fleet.yaml").write_text(json.dumps(fleet))
    for name, serve in objectives.items():
        rules = serve if serve.startswith("[") else f"[{{id: default, serve: {serve}}}]"
        head = f"objective: {name}\nsummary: A test.\nowner: tests\ntimeout_ms: {TIMEOUT_MS}\n"
        text = f"{head}context: {{country: {{type: string}}}}\nrules: {rules}\n"
        draft = target / f".{name}"
        draft.write_text(text)
        draft.rename(target / "objectives" / f"{name}.yaml")
    return target


def eventually(check: Callable[[], Any], timeout_s: float = 180.0, most_s: float = 1.0) -> Any:
    """Call `check` until it gives something true, and return that; the last value where it never does.

    It is called at longer and longer intervals, up to `most_s`: a look at the fleet takes the stack as much CPU time as some
    thirty requests.
    """
    began = time.monotonic()
    while True:
        value = check()
        waited_s = time.monotonic() - began
        if value or waited_s > timeout_s:
            return value
        time.sleep(min(max(0.1, waited_s / 5), most_s))


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _group(pid: int) -> int | None:
    """The process group of a process that lives; None for one that has ended, a zombie included."""
    stat = _stat(pid)
    return int(stat[2]) if stat and stat[0] != "Z" else None


def _child_prefix(pid: int, parent: int) -> re.Match[str] | None:
    stat = _stat(pid)
    if not stat or int(stat[1]) != parent:
        return None
    try:
        return _PREFIX.search((Path("/proc") / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " "))
    except OSError:
        return None
