"""The console of one process: what its handlers ask, with what is kept between two questions."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidegate.console.catalogue import Catalogue
from tidegate.console.children import Children, Task
from tidegate.console.golden import sample_inputs
from tidegate.console.graph import graph
from tidegate.console.kept import Computed, Kept, Latest
from tidegate.console.live_rules import POINTER_S, LiveRules, OpenedRules, named, open_rules
from tidegate.console.objective import objective_rules
from tidegate.console.overview import WINDOW_S, overview
from tidegate.console.rendering import rendered
from tidegate.console.rollback import Rollbacks
from tidegate.console.rules_directory import shown_files, state_of
from tidegate.console.server_times import read_times
from tidegate.console.sources import ConsoleSources
from tidegate.console.traffic import STEP_S
from tidegate.control.history import history
from tidegate.errors import Refusal, RefusedError, StoreError, UnknownObjectiveError, malformed
from tidegate.language.layout import Use, use_of
from tidegate.ports import ModelTimes
from tidegate.ports.bundle_store import iso_time
from tidegate.rules.nearest import nearest
from tidegate.rules.resolved import rules_bundle

Json = Mapping[str, Any]

OVERVIEW_S = 0.8
"""How long an overview is given to further viewers: to read one takes as much time of the CPU as thirty requests."""

ADOPTED_S = 2.0 * STEP_S
"""How long after a flip gateways decide by it, and what they counted before has been reported."""

PAIRS_S = 15.0
TIMES_S = 2.0

DRAFT_S = 30.0
DIFF_S = 30.0
SPACE_S = 60.0
READ_S = 30.0
MOST_WINDOW_S = 900.0
MOST_FILES = 200
LONGEST_PATH = 256


class Console:
    """What operators see and do, as plain JSON values. Use it on one event loop."""

    def __init__(self, sources: ConsoleSources) -> None:
        if sources.pairs is not None:
            pairs: Latest[Sequence[Json]] = Latest(sources.pairs, PAIRS_S, ())
            sources = replace(sources, pairs=pairs.get)
        self._sources = sources
        self._live = LiveRules(sources.plane)
        self._overview = Kept(lambda: overview(sources, self._live), OVERVIEW_S)
        self._times = Kept(self._read_times, TIMES_S)
        self._children = Children()
        self._spaces: Computed[Mapping[str, float]] = Computed()
        self._diffs: Computed[dict[str, Any]] = Computed()
        self._directories: Computed[dict[str, Any]] = Computed()
        self._catalogue: Catalogue | None = None
        self._catalogue_of: tuple[str, int] | None = None
        self._rollbacks = Rollbacks(sources.plane, sources.flipped, stops_after_answers=sources.stops_after_answers)

    async def overview(self) -> Json:
        """See `tidegate.console.overview`."""
        return await self._overview.get()

    async def fleet(self) -> Json:
        """Return the status of the fleet."""
        return await self._sources.status()

    async def metrics(self, accepted: str) -> tuple[str, bytes] | None:
        """Return the metrics in a format of the header `Accept`, with their media type; None: nothing counts."""
        return None if self._sources.metrics is None else await self._sources.metrics(accepted)

    async def traffic(self, objective: str, window_s: float) -> Json:
        """Return the rules of an objective with what they decided in the last `window_s` seconds (at most `MOST_WINDOW_S`), or since
        they became what they are: a rule that had other weights or targets before is another one, by the same name.

        Raises:
            UnknownObjectiveError: there is none of that name.
        """
        window_s = min(window_s, MOST_WINDOW_S)
        pointer = await self._live.pointer()
        opened = await self._live.opened(pointer.live.revision)
        opened.of(objective)
        traffic = self._sources.traffic
        changed = await self._live.changed_at(pointer, objective, time.time() - window_s - ADOPTED_S)
        since = 0.0 if changed is None else changed + ADOPTED_S
        rules = {} if traffic is None else await traffic.rules(objective, window_s, since)
        directory, spaces = await asyncio.gather(
            self._directory_soon(), self._space(opened, pointer.live.revision, objective)
        )
        lines = {} if directory is None else directory["lines"].get(objective, {})
        pairs = () if self._sources.pairs is None else await self._sources.pairs()
        shown = objective_rules(opened, objective, rules, lines, spaces, pairs)
        return {
            "objective": objective,
            "window_s": window_s,
            "changed_at": None if changed is None else iso_time(changed),
            "revision": opened.revision.bundle.rules,
            "requests": sum(each["requests"] for each in shown),
            "rules": shown,
            "history": None if traffic is None else (await traffic.history(objective))._asdict(),
        }

    async def cases(self, objective: str) -> Json:
        """Return the cases of an objective, of the rules directory as it is; none where there is no directory."""
        (await self._live.live()).of(objective)
        found = await self._directory()
        return {"cases": [] if found is None else found["cases"].get(objective, [])}

    async def source(self, objective: str) -> Json:
        """Return the rules of an objective as files: those of the rules directory, or else written from the live bundle.

        `matches_live` says whether the directory compiles to what is live; it does not after a change that was refused.
        """
        opened = await self._live.live()
        opened.of(objective)
        revision = opened.revision.bundle.rules
        found = await self._directory()
        if found is not None and self._sources.rules is not None:
            files = await asyncio.to_thread(
                shown_files, self._sources.rules, objective, found["files"], found["broken"]
            )
            return {
                "revision": revision,
                "as_written": True,
                "matches_live": found["revision"] == revision,
                "files": files,
            }
        every = await asyncio.to_thread(rendered, (await self._as_files(opened)).revision)
        own = f"objectives/{objective}.yaml"
        files = [{"path": name, "text": text} for name, text in every.items() if name == own or "/" not in name]
        files.sort(key=lambda each: each["path"] != own)
        return {"revision": revision, "as_written": False, "matches_live": True, "files": files}

    async def draft(self, body: Json) -> Json:
        """Judge edited rules. Raises `RefusedError`: the body is not one, or judging takes too long."""
        _check_members(body, "objective", "files", "context")
        files, objective, context = body.get("files"), body.get("objective"), body.get("context")
        if not isinstance(objective, str):
            raise malformed("the member 'objective' must be the name of an objective")
        if context is not None and not isinstance(context, Mapping):
            raise malformed("the member 'context' must be an object or null")
        live = await self._live.live()
        payload = {
            "files": _edited(files),
            "objective": objective,
            "context": context,
            "directory": None if self._sources.rules is None else str(self._sources.rules),
            "bundle": b64encode(live.revision.bundle.data).decode(),
        }
        found: Json = await self._children.run(Task.DRAFT, payload, DRAFT_S)
        return found

    async def graph(self, revision: str, objective: str | None) -> Json:
        """See `tidegate.console.graph`."""
        return graph(await self._live.named(revision), objective)

    async def revisions(self) -> Json:
        """Return the history, as `tidegate history --json` does."""
        return {"history": history(await self._live.pointer(), self._sources.plane.config.keep_revisions)}

    async def diff(self, old: str, new: str, objective: str | None) -> Json:
        """Compare two revisions, as `tidegate rules diff --json` does. Raises `RefusedError`: one is unknown, or it takes too long."""
        pointer = await self._live.pointer()
        before, after = named(pointer, old).revision, named(pointer, new).revision
        if objective is not None:
            await self._check_objective(objective, before, after)
        at = time.time()

        async def compute() -> dict[str, Any]:
            bundles = [await self._sources.plane.reader.bundle(each) for each in (before, after)]
            sides = {side: b64encode(each.data).decode() for side, each in zip(("old", "new"), bundles, strict=True)}
            payload = {**sides, "at": at, "objective": objective}
            found: dict[str, Any] = await self._children.run(Task.DIFF, payload, DIFF_S)
            return found

        # A window of a rule that begins or ends changes the shares.
        found = await self._diffs.get((before, after, objective, int(at // 60)), compute)
        sides = {side: {"name": name, "revision": found[side]} for side, name in (("old", old), ("new", new))}
        return {"ok": True, **found, **sides, "at": None, "weighting": "uniform", "skipped": []}

    async def _check_objective(self, objective: str, *revisions: str) -> None:
        """Raise `UnknownObjectiveError` where none of some revisions has an objective."""
        names: set[str] = set()
        for revision in revisions:
            names |= (await self._live.opened(revision)).rules.keys()
        if objective not in names:
            raise UnknownObjectiveError(objective, nearest(objective, names))

    async def roll_back(self, body: Json, by: str) -> Json:
        """Make an earlier revision live, which every later answer shows. Raises `RefusedError`: the console only reads, or it cannot
        be done."""
        if not self._sources.writes:
            raise RefusedError(
                Refusal.READ_ONLY,
                "the console only reads: start the stack with TIDEGATE_CONSOLE_WRITES=true, or use `tidegate rollback`",
            )
        _check_members(body, "to", "why")
        try:
            return await self._rollbacks.roll_back(body.get("to", ""), body.get("why", ""), by)
        finally:
            self._overview.drop()

    async def models(self) -> Json:
        """Return the models that the live rules need: see `tidegate.console.catalogue`."""
        catalogue = await self._live_catalogue()
        figures = {} if self._sources.traffic is None else await self._sources.traffic.models(WINDOW_S)
        return {"models": catalogue.rows(figures, await self._memory_mb())}

    async def model(self, name: str) -> Json:
        """Return one of them. Raises `RefusedError`: there is none of that name."""
        catalogue = await self._live_catalogue()
        figures = {} if self._sources.traffic is None else await self._sources.traffic.models(WINDOW_S)
        times, status = await asyncio.gather(self._times.get(), self._sources.status())
        loaded = [
            {"shard": shard["name"], "url": endpoint["url"], "version": model["version"], "state": model["state"]}
            for shard in status["shards"]
            for endpoint in shard["endpoints"]
            for model in endpoint["models"]
            if model["name"] == name
        ]
        shown = catalogue.model(name, figures, await self._memory_mb(), times, loaded)
        return {**shown, "sample": await self._sample(name)}

    async def placement(self) -> Json:
        """Return the plan of the fleet against the live placement, as `tidegate fleet plan --json` does. Without a rules directory it is
        the live placement alone, as a bundle has no demands."""
        opened = await self._live.live()
        current = {model: list(shards) for model, shards in opened.revision.manifest.fleet.models.items()}
        if self._sources.rules is None:
            return {"ok": True, "fits": True, "problems": [], "placement": current, "reasons": {}, "moves": [], "load_mb": 0, "shards": [], "notes": []}  # fmt: skip
        models = None if self._sources.models is None else str(self._sources.models)
        payload = {"directory": str(self._sources.rules), "models": models, "current": current}
        found: Json = await self._children.run(Task.PLACEMENT, payload, READ_S)
        return found

    async def _space(self, opened: OpenedRules, revision: str, objective: str) -> Mapping[str, float] | None:
        now = time.time()
        # The shares are those of a moment: they change when a window begins or ends.
        over = sum(start <= now for start in opened.moments.get(objective, ()))

        async def compute() -> Mapping[str, float]:
            bundle = b64encode(opened.revision.bundle.data).decode()
            payload = {"bundle": bundle, "objective": objective, "at": now}
            found: Mapping[str, float] = await self._children.run(Task.SPACE, payload, SPACE_S)
            return found

        return await self._spaces.soon((revision, objective, over), compute)

    async def _directory_key(self) -> Any:
        return None if self._sources.rules is None else await asyncio.to_thread(state_of, self._sources.rules)

    async def _read_directory(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._children.run(
            Task.DIRECTORY, {"directory": str(self._sources.rules)}, READ_S
        )
        return found

    async def _directory_soon(self) -> dict[str, Any] | None:
        key = await self._directory_key()
        return None if key is None else await self._directories.soon(key, self._read_directory)

    async def _directory(self) -> dict[str, Any] | None:
        key = await self._directory_key()
        return None if key is None else await self._directories.get(key, self._read_directory)

    async def _memory_mb(self) -> Mapping[str, int]:
        found = await self._directory_soon()
        return {} if found is None else found["memory_mb"]

    async def _live_catalogue(self) -> Catalogue:
        pointer = await self._live.pointer()
        live = pointer.live
        if self._catalogue is None or self._catalogue_of != (live.revision, live.sequence):
            opened = await self._live.opened(live.revision)
            plans = await self._sources.plane.reader.assignment(live.revision)
            self._catalogue = await asyncio.to_thread(Catalogue, opened, plans)
            self._catalogue_of = (live.revision, live.sequence)
        return self._catalogue

    async def _read_times(self) -> Mapping[tuple[str, int], ModelTimes]:
        """Return what models took, over all servers that answer."""
        if not self._sources.asks:
            return {}
        total: dict[tuple[str, int], ModelTimes] = {}
        for found in (await read_times(self._sources.plane)).values():
            for key, times in found.items():
                total[key] = times if key not in total else total[key].plus(times)
        return total

    async def _sample(self, model: str) -> Any:
        """Return the inputs of a golden request; None also where the store does not answer."""
        try:
            async with asyncio.timeout(POINTER_S):
                return sample_inputs(await self._sources.plane.ports.models.samples(model))
        except (StoreError, TimeoutError):
            return None

    async def _as_files(self, opened: OpenedRules) -> OpenedRules:
        return await asyncio.to_thread(open_rules, rules_bundle(opened.revision.bundle.data))


def _check_members(body: Json, *known: str) -> None:
    unknown = body.keys() - set(known)
    if unknown:
        members = ", ".join(repr(each) for each in known)
        raise malformed(f"unknown member {min(unknown)[:64]!r} in the body; the members are {members}")


def _edited(files: Any) -> dict[str, str]:
    """Return the edited files by path. Raises `RefusedError`: they are not files of a rules directory."""
    if not isinstance(files, Sequence) or isinstance(files, str) or len(files) > MOST_FILES:
        raise malformed(f"the member 'files' must be a list of at most {MOST_FILES} files")
    found: dict[str, str] = {}
    for each_ in files:
        path, text = (each_.get("path"), each_.get("text")) if isinstance(each_, Mapping) else (None, None)
        if not isinstance(path, str) or not isinstance(text, str):
            raise malformed("each of 'files' must be an object with the texts 'path' and 'text'")
        # The path is that of one of the few places that are read, so it leads nowhere else.
        if use_of(path) is not Use.READ or len(path) > LONGEST_PATH or not path.isprintable():
            raise malformed(
                f"{path[:64]!r} is not a file of rules: write fleet.yaml, layers.yaml, callers.yaml, objectives/NAME.yaml or cases/NAME.yaml"
            )
        if path in found:
            raise malformed(f"{path!r} is twice among 'files'; send each file once")
        found[path] = text
    return found
