"""The objects of the bundle and model stores as JSON. Decoding checks every field, as others may have written to the bucket,
and raises `StoreError` if the bytes are damaged.

This module imports no boto3, as the gateway's function decodes the pointer too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, TypeVar

from tidegate.aws.layout import MANIFESTS, is_revision, unit_key
from tidegate.errors import DamagedError, StoreError
from tidegate.model_units import MAX_PATH_BYTES, is_below
from tidegate.ports import BadMark, Claim, ClaimStage, LiveEntry, ModelFile, ModelLoad, Pointer
from tidegate.rules.bundle import encode, short_revision
from tidegate.strict_json import member

T = TypeVar("T")

GAP_TOKEN_BYTES = 8
GAP_BYTES = len('{"gap":""}') + 2 * GAP_TOKEN_BYTES
"""Size of a gap, which is in a manifest's place while a unit is being written; a manifest is always larger."""

_GAP = re.compile(rb'\{"gap":"[0-9a-f]+"\}')

END_OF_TIME_S = 253_402_300_800
"""The beginning of the year 10000, in Unix seconds, which `datetime` cannot represent."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a manifest, with the ETag of its object (empty: unknown)."""

    file: ModelFile
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a unit. `draft` is a unique token of a draft; empty: the unit never changes."""

    files: tuple[StoredFile, ...]
    draft: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """The unit that a push is going to write. Once `committed`, it does not change, and the manifest follows."""

    files: tuple[ModelFile, ...]
    by: str
    committed: bool = False


def encode_pointer(pointer: Pointer) -> bytes:
    return encode(
        {"entries": [_fields(entry) for entry in pointer.entries], "bad": [asdict(mark) for mark in pointer.bad]}
    )


def decode_pointer(data: bytes, tag: str) -> Pointer:
    """Decode the pointer; `tag` is its ETag. One from before there were marks has none.

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
    return encode(_fields(entry))


def decode_entry(data: bytes) -> LiveEntry:
    return _decoded("a flip in the history", data, _entry)


def encode_claim(claim: Claim) -> bytes:
    fields = _fields(claim)
    del fields["damaged"]
    return encode(fields)


def decode_claim(key: str, data: bytes) -> Claim:
    """Decode the claim at `key`. One from before there were stages is `PROVED`."""

    def read(value: Any) -> Claim:
        stage = ClaimStage(_text(value, "stage")) if "stage" in value else ClaimStage.PROVED
        return Claim(
            _text(value, "id"), _text(value, "revision") or None, _text(value, "by"), _time(value, "expires_at"), stage
        )

    return _decoded(f"the claim {key}", data, read)


def encode_assignment(revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> bytes:
    """Encode an assignment with a digest of its plans."""
    fields = {shard: [asdict(load) for load in plan] for shard, plan in plans.items()}
    return encode({"revision": revision, "plans": fields, "sha256": sha256(encode(fields)).hexdigest()})


def decode_assignment(revision: str, data: bytes) -> dict[str, tuple[ModelLoad, ...]]:
    def read(value: Any) -> dict[str, tuple[ModelLoad, ...]]:
        plans = member(value, "plans", dict)
        if _text(value, "sha256") != sha256(encode(plans)).hexdigest() or _text(value, "revision") != revision:
            raise ValueError("its digest is another")
        return {shard: tuple(_load(each) for each in _list(plans, shard)) for shard in plans}

    return _decoded(f"the assignment of revision {short_revision(revision)}", data, read)


def encode_manifest(model: str, version: int | None, files: Iterable[StoredFile], draft: str = "") -> bytes:
    return encode(
        {
            "model": model,
            "version": version,
            "files": [{**asdict(stored.file), "etag": stored.etag} for stored in files],
            **({"draft": draft} if draft else {}),
        }
    )


def decode_manifest(key: str, data: bytes) -> Manifest:
    """Decode the manifest at `key`; one that was copied from another unit is damaged."""

    def read(value: Any) -> Manifest:
        if unit_key(MANIFESTS, _text(value, "model"), member(value, "version", int, type(None))) != key:
            raise ValueError("it is another unit's")
        files = tuple(StoredFile(_file(each), _text(each, "etag")) for each in _list(value, "files"))
        return Manifest(files, _text(value, "draft") if "draft" in value else "")

    return _decoded(f"the manifest {key}", data, read)


def encode_gap(token: str) -> bytes:
    """Encode a gap with a token of `GAP_TOKEN_BYTES` random bytes in hexadecimal. Each differs, so that a write on the condition
    of an earlier gap fails."""
    return encode({"gap": token})


def is_gap(data: bytes) -> bool:
    return len(data) == GAP_BYTES and _GAP.fullmatch(data) is not None


def encode_intent(intent: Intent) -> bytes:
    return encode(asdict(intent))


def decode_intent(key: str, data: bytes) -> Intent:
    def read(value: Any) -> Intent:
        files = tuple(_file(each) for each in _list(value, "files"))
        return Intent(files, _text(value, "by"), member(value, "committed", bool))

    return _decoded(f"the record of a push {key}", data, read)


def undecodable(decode: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    """Return a check whether an object cannot be decoded."""

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


def _fields(value: LiveEntry | Claim) -> dict[str, Any]:
    """Return the members of a document, which has an empty text in place of None."""
    return {name: "" if member is None else member for name, member in asdict(value).items()}


def _text(value: Any, name: str) -> str:
    text: str = member(value, name, str)
    # JSON may escape lone surrogates, which UTF-8 cannot encode.
    text.encode()
    return text


def _time(value: Any, name: str) -> float:
    seconds = float(member(value, name, int, float))
    if not 0 <= seconds < END_OF_TIME_S:
        raise ValueError(f"{name} is not a time")
    return seconds


def _list(value: Any, name: str) -> list[Any]:
    found: list[Any] = member(value, name, list)
    return found


def _entry(value: Any) -> LiveEntry:
    sequence: int = member(value, "sequence", int)
    texts = {name: _text(value, name) for name in ("revision", "by", "why", "action")}
    if not is_revision(texts["revision"]):
        raise ValueError("revision is malformed")
    # A flip of an older version of Tidegate lacks these.
    optional = {name: _text(value, name) for name in ("marked_bad", "follows") if name in value}
    cleared: bool = member(value, "cleared", bool) if "cleared" in value else False
    return LiveEntry(
        sequence=sequence,
        at=_time(value, "at"),
        marked_bad=optional.get("marked_bad") or None,
        cleared=cleared,
        follows=optional.get("follows") or None,
        **texts,
    )


def _mark(value: Any) -> BadMark:
    return BadMark(_text(value, "revision"), _text(value, "by"), _time(value, "at"), _text(value, "why"))


def _file(value: Any) -> ModelFile:
    path = _text(value, "path")
    if not is_below(path):
        raise ValueError(f"{path[:MAX_PATH_BYTES]!r} is not a path below a model's folder")
    return ModelFile(path, _text(value, "sha256"), member(value, "size_bytes", int))


def _load(value: Any) -> ModelLoad:
    versions, steps = _list(value, "versions"), _list(value, "steps")
    if not all(type(each) is int for each in versions) or not all(type(each) is str for each in steps):
        raise ValueError("versions or steps are of another type")
    return ModelLoad(_text(value, "model"), tuple(versions), member(value, "config", str, type(None)), tuple(steps))
