"""What the version before wrote into the stores is read, so that an update needs no migration."""

from __future__ import annotations

import json
from typing import Any

from tidegate.analysis.compare.revision import open_revision
from tidegate.aws import formats
from tidegate.aws.layout import assignment_key, bundle_key
from tidegate.ports import Claim, ClaimStage, LiveEntry, ModelFile, ModelLoad, Pointer
from tidegate.rules import load_bundle
from tidegate.rules.resolved import resolve_bundle, rules_bundle

REVISION = "a" * 64
ROLLBACK = {"action": "rollback", "at": 1.5, "by": "ann", "revision": REVISION, "sequence": 3, "why": "errors"}
PUBLISH = {"action": "publish", "at": 1.0, "by": "ben", "revision": "b" * 64, "sequence": 2, "why": ""}
CLAIM = {"by": "ann", "expires_at": 12.5, "id": "00001-host-1-x", "revision": REVISION}
FILE = {"path": "1/model.py", "sha256": "0" * 64, "size_bytes": 12}

RESOLVED = rb"""{"checksum":"028105b0","format":"tidegate-bundle","format_version":1,"lines":4}
{"fleet":{"aliases":{},"models":{"m":["main"]},"shards":{"main":{"replicas":1}}},"hash_version":1,"layers":{},"objectives":{"ranking":{"allocations":[],"context":{"country":{"type":"string"}},"line":2,"owner":"tests","sticky_key":[],"summary":"A test.","targets":["m"],"timeout_ms":20000}},"steps":{"ens":{"m":2}},"targets":{"m":["m",3]}}
{"dimensions":{},"layers":{},"rows":1,"rules":1}
{"id":"default","serve":"m","timeout_ms":20000,"when":[]}
"""
"""A resolved bundle, whose revision was the digest of its bytes alone."""

RESOLVED_REVISION = "fc24ddb1b23ec82a1917841c179d7f5d265efd63b19efb7ee9d3a6fa15620d47"


def stored(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_pointer_without_marks_is_read() -> None:
    pointer = formats.decode_pointer(stored({"entries": [ROLLBACK, PUBLISH]}), "tag")
    assert pointer == Pointer(
        (LiveEntry(REVISION, 3, "ann", 1.5, "errors", "rollback"), LiveEntry("b" * 64, 2, "ben", 1.0)), "tag"
    )
    assert formats.decode_pointer(formats.encode_pointer(pointer), "tag") == pointer


def test_a_flip_in_the_history_is_the_one_that_the_pointer_has() -> None:
    pointer = formats.decode_pointer(stored({"entries": [ROLLBACK]}), "tag")
    assert formats.decode_entry(stored(ROLLBACK)) == pointer.live


def test_everybody_loads_the_models_of_a_claim_without_a_stage() -> None:
    claim = formats.decode_claim("key", stored(CLAIM))
    assert claim == Claim("00001-host-1-x", REVISION, "ann", 12.5, ClaimStage.PROVED)
    assert claim.publishes
    assert not formats.decode_claim("key", stored(CLAIM | {"revision": ""})).publishes, "a repairer"


def test_an_assignment_is_read() -> None:
    assignment = {
        "plans": {"cpu": [{"config": '{"name":"m"}', "model": "m", "steps": ["step"], "versions": [1, 2]}]},
        "revision": REVISION,
        "sha256": "fee7476188ae386d24859b4392936cd1873650fa7fbe1a0bf57cb56afc1264fc",
    }
    load = ModelLoad("m", (1, 2), '{"name":"m"}', ("step",))
    assert formats.decode_assignment(REVISION, stored(assignment)) == {"cpu": (load,)}
    assert json.loads(formats.encode_assignment(REVISION, {"cpu": [load]})) == assignment
    assert assignment_key(REVISION) == f"assignments/{REVISION}.json"


def test_a_unit_is_no_draft_and_a_push_under_way_is_read() -> None:
    file = ModelFile("1/model.py", "0" * 64, 12)
    manifest = {"files": [FILE | {"etag": "e"}], "model": "m", "version": 1}
    assert formats.decode_manifest("manifests/m/1.json", stored(manifest)).files == (formats.StoredFile(file, "e"),)
    assert not formats.decode_manifest("manifests/m/1.json", stored(manifest)).draft
    intent = {"by": "ann", "committed": True, "files": [FILE]}
    assert formats.decode_intent("key", stored(intent)) == formats.Intent((file,), "ann", True)


def test_a_bundle_that_names_no_rules_serves_on_is_compared_and_resolved_again() -> None:
    engine = load_bundle(RESOLVED)
    assert engine.revision == engine.rules == RESOLVED_REVISION
    assert engine.decide("ranking", {}).version == 3
    assert bundle_key(RESOLVED_REVISION) == f"bundles/{RESOLVED_REVISION}"
    assert open_revision(rules_bundle(RESOLVED)).bundle.revision == RESOLVED_REVISION
    again = resolve_bundle(RESOLVED, {}, {"ens": {"m": 4}})
    assert load_bundle(again).rules == RESOLVED_REVISION
    assert rules_bundle(again) == RESOLVED
