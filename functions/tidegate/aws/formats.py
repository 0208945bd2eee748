"""The objects of the bundle and model stores as JSON. Reading checks every field, as anyone may have written to a bucket.

No boto3 here: the gateway's function reads the pointer too. The readers raise `StoreError` where the bytes are damaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from tidegate.aws.layout import MANIFESTS, is_revision, unit_key
from tidegate.errors import DamagedError, StoreError
from tidegate.ports import BadMark, Claim, ClaimStage, LiveEntry, ModelFile, ModelLoad, Pointer
from tidegate.ports.model_units import MAX_PATH_BYTES, is_below
from tidegate.rules.bundle import encode

T = TypeVar("T")

GAP_TOKEN_BYTES = 8
GAP_BYTES = len('{"gap":""}') + 2 * GAP_TOKEN_BYTES
"""Size of what is in a manifest's place while a unit is being written; a manifest is always bigger."""

_GAP = re.compile(rb'\{"gap":"[0-9a-f]+"\}')

END_OF_TIME_S = 253_402_300_800
"""The beginning of the year 10000, in Unix seconds: no date is as late."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a manifest, with the ETag of the object that holds it (empty: not known)."""

    file: ModelFile
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a unit that is there whole. `draft` is a token of its own for each unit that was never live; where it
    is empty, the unit never changes."""

    files: tuple[StoredFile, ...]
    draft: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a push means to write as one unit. Once `committed` it never changes, and its manifest follows."""

    files: tuple[ModelFile, ...]
    by: str
    committed: bool = False


def encode_pointer(pointer: Pointer) -> bytes:
    """The pointer's object."""
    bad = [{"revision": mark.revision, "by": mark.by, "at": mark.at, "why": mark.why} for mark in pointer.bad]
    return encode({"entries": [_entry_fields(entry) for entry in pointer.entries], "bad": bad})


def decode_pointer(data: bytes, tag: str) -> Pointer:
    """The pointer from its object and that object's ETag. One that was written before there were marks has none.

    Raises:
        DamagedError: it cannot be decoded.
    """

    def read(value: Any) -> Pointer:
        entries = tuple(_entry(each) for each in _list(value, "entries"))
        if not entries:
            raise ValueError("it has no entry")
        bad = tuple(_mark(each) for each in _list(value, "bad")) if "bad" in value else ()
        return Pointer(entries, tag, bad)

    try:
        return _decoded("the pointer to the live revision", data, read)
    except StoreError as error:
        raise DamagedError(f"{error}; see `tidegate recover`") from error


def encode_entry(entry: LiveEntry) -> bytes:
    """One flip as an object of the history."""
    return encode(_entry_fields(entry))


def decode_entry(data: bytes) -> LiveEntry:
    """One flip from an object of the history."""
    return _decoded("a flip in the history", data, _entry)


def encode_claim(claim: Claim) -> bytes:
    """A claim's object."""
    return encode(
        {
            "id": claim.id,
            "revision": claim.revision,
            "by": claim.by,
            "expires_at": claim.expires_at,
            "stage": claim.stage,
        }
    )


def decode_claim(key: str, data: bytes) -> Claim:
    """A claim from its object at `key`. Everybody loads the models of one that was written before there were stages."""

    def read(value: Any) -> Claim:
        stage = ClaimStage(_text(value, "stage")) if "stage" in value else ClaimStage.PROVED
        return Claim(
            _text(value, "id"), _text(value, "revision"), _text(value, "by"), _time(value, "expires_at"), stage
        )

    return _decoded(f"the claim {key}", data, read)


def encode_assignment(revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> bytes:
    """An assignment's object; it holds a digest of its own plans."""
    fields = {shard: [_load_fields(load) for load in plan] for shard, plan in plans.items()}
    return encode({"revision": revision, "plans": fields, "sha256": sha256(encode(fields)).hexdigest()})


def decode_assignment(revision: str, data: bytes) -> dict[str, tuple[ModelLoad, ...]]:
    """An assignment from its object."""

    def read(value: Any) -> dict[str, tuple[ModelLoad, ...]]:
        plans = _get(value, "plans", dict)
        if _text(value, "sha256") != sha256(encode(plans)).hexdigest() or _text(value, "revision") != revision:
            raise ValueError("its digest is another")
        return {shard: tuple(_load(each) for each in _list(plans, shard)) for shard in plans}

    return _decoded(f"the assignment of revision {revision[:12]}", data, read)


def encode_manifest(model: str, version: int | None, files: Iterable[StoredFile], draft: str = "") -> bytes:
    """The commit marker of a unit: see `Manifest`."""
    return encode(
        {
            "model": model,
            "version": version,
            "files": [{**_file_fields(stored.file), "etag": stored.etag} for stored in files],
            **({"draft": draft} if draft else {}),
        }
    )


def decode_manifest(key: str, data: bytes) -> Manifest:
    """A unit from its commit marker at `key`; one that was copied from another unit's place is damaged."""

    def read(value: Any) -> Manifest:
        if unit_key(MANIFESTS, _text(value, "model"), _get(value, "version", int, type(None))) != key:
            raise ValueError("it is another unit's")
        files = tuple(StoredFile(_file(each), _text(each, "etag")) for each in _list(value, "files"))
        return Manifest(files, _text(value, "draft") if "draft" in value else "")

    return _decoded(f"the manifest {key}", data, read)


def encode_gap(token: str) -> bytes:
    """What is in a manifest's place while the unit is being written: no manifest, and another one each time, so that a
    write on the condition of one that was seen fails once somebody else began.

    Args:
        token: `GAP_TOKEN_BYTES` random bytes in hexadecimal.
    """
    return encode({"gap": token})


def is_gap(data: bytes) -> bool:
    """Whether an object in a manifest's place is none."""
    return len(data) == GAP_BYTES and _GAP.fullmatch(data) is not None


def encode_intent(intent: Intent) -> bytes:
    """What a push under way means to write."""
    fields = [_file_fields(file) for file in intent.files]
    return encode({"files": fields, "by": intent.by, "committed": intent.committed})


def decode_intent(key: str, data: bytes) -> Intent:
    """What a push under way means to write, from its object at `key`."""

    def read(value: Any) -> Intent:
        files = tuple(_file(each) for each in _list(value, "files"))
        return Intent(files, _text(value, "by"), _get(value, "committed", bool))

    return _decoded(f"the record of a push {key}", data, read)


def undecodable(decode: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    """Make a check whether an object is damaged, from what decodes it."""

    def check(data: bytes) -> bool:
        try:
            decode(data)
        except StoreError:
            return True
        return False

    return check


def _decoded(what: str, data: bytes, read: Callable[[Any], T]) -> T:
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError("it is not an object")
        return read(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise StoreError(f"{what} is damaged: {error}") from error


def _get(value: Any, name: str, *kinds: type) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"{name} is missing")
    if type(value[name]) not in kinds:
        raise ValueError(f"{name} is a {type(value[name]).__name__}")
    return value[name]


def _text(value: Any, name: str) -> str:
    """A text that UTF-8 can hold: JSON's escapes also write halves of characters, which no one could write on."""
    text: str = _get(value, name, str)
    text.encode()
    return text


def _time(value: Any, name: str) -> float:
    """A time in Unix seconds, of a year that dates have."""
    seconds = float(_get(value, name, int, float))
    if not 0 <= seconds < END_OF_TIME_S:
        raise ValueError(f"{name} is not a time")
    return seconds


def _list(value: Any, name: str) -> list[Any]:
    found: list[Any] = _get(value, name, list)
    return found


def _entry_fields(entry: LiveEntry) -> dict[str, Any]:
    return {
        "revision": entry.revision,
        "sequence": entry.sequence,
        "by": entry.by,
        "at": entry.at,
        "why": entry.why,
        "action": entry.action,
        "marked_bad": entry.marked_bad,
        "cleared": entry.cleared,
        "follows": entry.follows,
    }


def _entry(value: Any) -> LiveEntry:
    sequence: int = _get(value, "sequence", int)
    texts = {name: _text(value, name) for name in ("revision", "by", "why", "action")}
    if not is_revision(texts["revision"]):
        raise ValueError("revision is none")
    # Those that a flip of an older version of Tidegate lacks.
    texts |= {name: _text(value, name) for name in ("marked_bad", "follows") if name in value}
    cleared: bool = _get(value, "cleared", bool) if "cleared" in value else False
    return LiveEntry(sequence=sequence, at=_time(value, "at"), cleared=cleared, **texts)


def _mark(value: Any) -> BadMark:
    return BadMark(_text(value, "revision"), _text(value, "by"), _time(value, "at"), _text(value, "why"))


def _file_fields(file: ModelFile) -> dict[str, Any]:
    return {"path": file.path, "sha256": file.sha256, "size_bytes": file.size_bytes}


def _file(value: Any) -> ModelFile:
    path = _text(value, "path")
    if not is_below(path):
        raise ValueError(f"{path[:MAX_PATH_BYTES]!r} is not a path below a model's folder")
    return ModelFile(path, _text(value, "sha256"), _get(value, "size_bytes", int))


def _load_fields(load: ModelLoad) -> dict[str, Any]:
    return {"model": load.model, "versions": load.versions, "config": load.config, "steps": load.steps}


def _load(value: Any) -> ModelLoad:
    versions, steps = _list(value, "versions"), _list(value, "steps")
    if not all(type(each) is int for each in versions) or not all(type(each) is str for each in steps):
        raise ValueError("versions or steps are of another type")
    return ModelLoad(_text(value, "model"), tuple(versions), _get(value, "config", str, type(None)), tuple(steps))
