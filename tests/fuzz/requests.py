"""Requests for the gateway that nobody would write: bytes of good requests changed in places, and odd parts put together.

Every value that is context holds `CANARY`, which no log may ever show.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.mutations import smashed
from tests.isolation.place import infer, tensors, v1
from tests.support.wire import message

CANARY = "canary7f3a"
OBJECTIVES = ("quiet", "chain", "texts")
CONTEXT = json.dumps({"country": CANARY, "city": CANARY})

METHODS = (
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "QUERY",
    "get",
    "G\u00c9T",
    "",
)
PATHS = (
    "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/{o}", "/v2/models/{o}/infer", "/v2/models/{o}/ready",
    "/v2/models/{o}/config", "/v2/models/{o}/stats", "/v2/models/{o}/versions/1/infer", "/v2/models/{o}/versions/2/infer",
    "/v2/models/{o}/versions/99999999999999999999/infer", "/v2/models/{o}/generate", "/v2/models/{o}/generate_stream",
    "/v2/models/nowhere/infer", "/v2/models//infer", "/v2/models/../infer", "/v2/models/%2e%2e/infer", "/v2/repository/index",
    "/v2/repository/models/{o}/unload", "/v2/systemsharedmemory/status", "/v2/trace/setting", "/v2/logging", "/v2/models/stats",
    "/v1/objectives", "/v1/objectives/{o}", "/v1/objectives/{o}/infer", "/v1/objectives/{o}/resolve", "/v1/fleet", "/openapi.json",
    "/v1/objectives/{o}/infer?explain=true", "/v1/objectives/{o}/resolve?explain=yes", "/v1/objectives/{o}/infer?a=%00",
    "/", "*", "//", "/metrics", "/v1/objectives/" + "a" * 3000, "http://a/v2/health/live", "/v2?" + "a=b&" * 500, "/v2#a", "/\x7f",
)  # fmt: skip
INFERENCES = ("/v2/models/{o}/infer", "/v2/models/{o}/infer", "/v1/objectives/{o}/infer", "/v1/objectives/{o}/resolve")
READ = ("ready", "live", "config", "stats", "fleet", "/v2", "objectives", ".json", *OBJECTIVES)
HEADERS: tuple[tuple[str, str], ...] = (
    ("Tidegate-Context", CONTEXT), ("Tidegate-Context", "[" * 500), ("Tidegate-Context", '{"country": null}'),
    ("Tidegate-Context", '{"country": "\\ud800"}'), ("Tidegate-Context", '{"allocations": {"1": 1}}'), ("Tidegate-Context", ""),
    ("Tidegate-Context", '{"country": "' + CANARY * 100 + '"}'), ("Tidegate-Context", "\xff\xfe"), ("Tidegate-Context", "{}"),
    ("Tidegate-Caller", ""), ("Tidegate-Caller", "nobody"), ("Tidegate-Caller", "stranger"), ("Tidegate-Caller", "\xe9"),
    ("Tidegate-Override", "quiet"), ("Tidegate-Override", "link/1"), ("Tidegate-Override", "../x"),
    ("Tidegate-Timeout-Ms", "1"), ("Tidegate-Timeout-Ms", "0"), ("Tidegate-Timeout-Ms", "1e9"), ("Tidegate-Timeout-Ms", "5000"),
    ("Tidegate-Timeout-Ms", "999999999"), ("Tidegate-Param-top_k", "9"), ("X-City", CANARY), ("X-City", "\xff"),
    ("Content-Type", "text/plain"), ("Content-Type", "application/octet-stream"), ("Content-Type", "application/json; charset=utf-16"),
    ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"), ("Content-Encoding", "br"), ("Content-Encoding", "gzip, gzip"),
    ("Content-Encoding", "identity"), ("Accept-Encoding", "gzip"), ("Accept-Encoding", "*;q=0"), ("Expect", "100-continue"),
    ("Expect", "200-maybe"), ("Inference-Header-Content-Length", "10"), ("Inference-Header-Content-Length", "-1"),
    ("Inference-Header-Content-Length", "99999999999999999999"), ("Inference-Header-Content-Length", "0"),
    ("Inference-Header-Content-Length", "abc"), ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"), ("traceparent", "x" * 9000),
    ("baggage", "a=\xe9"), ("Connection", "close"), ("Connection", "Upgrade"), ("Connection", "content-type, host"), ("Upgrade", "h2c"),
    ("TE", "trailers"), ("X-Large", "x" * 20000), ("X-Odd", "a\tb"), ("Cookie", "a=b"), ("Forwarded", "for=1"), ("Range", "bytes=0-1"),
    ("X-HTTP-Method-Override", "DELETE"), ("Endpoint-Load-Metrics-Format", "json"), ("Endpoint-Load-Metrics-Format", "\\"),
)  # fmt: skip
DATATYPES = ("FP32", "FP64", "FP16", "BF16", "INT8", "INT64", "UINT64", "BOOL", "BYTES", "", "fp32", None, 1)
SHAPES: tuple[object, ...] = (
    [1], [0], [2], [], [-1], [1, 1], [1 << 62], [1 << 63], [1 << 64], [1, 1 << 62], [1 << 31, 1 << 31], [1.5], ["1"], None, "1", [None],
    [[1]], [True], [10**30], [1] * 300,
)  # fmt: skip
DATA: tuple[object, ...] = (
    [0.5], [], [1, 2], [None], [True], ["a"], [[0.5]], [[[]]], "0.5", 1, None, {}, [1e39], [-0.0], [10**400], ["\ud800"], [{"a": 1}],
)  # fmt: skip
PARAMETERS: tuple[object, ...] = (
    {"country": CANARY}, {"country": 1}, {"country": None}, {"country": ["a"]}, {"allocations": "{"}, {"sequence_id": 1}, {"sequence_id": "a"},
    {"sequence_id": "\ud800"}, {"sequence_id": "a" * 21}, {"sequence_id": 1 << 64}, {"sequence_id": -1}, {"sequence_id": 1.5}, {"priority": -1},
    {"timeout": -1}, {"timeout": 1}, {"binary_data_output": 1}, {"binary_data_output": True}, {"Tidegate-Param-x": "1"}, {"headers": "a"},
    {"triton_x": 1}, {"a": "b" * 5000}, {"": ""}, [], None, "a", {"sequence_start": True, "sequence_id": 7},
    {"sequence_end": True, "sequence_id": 0},
)  # fmt: skip
REGIONS: tuple[object, ...] = (
    {"shared_memory_region": "a", "shared_memory_byte_size": 4}, {"shared_memory_region": "a", "shared_memory_offset": -1}, [], "a", {},
)  # fmt: skip
MEMBERS: dict[str, tuple[object, ...]] = {
    "name": ("TEXT", "", "Z", None),
    "datatype": DATATYPES,
    "shape": SHAPES,
    "data": DATA,
    "parameters": REGIONS,
}
CODINGS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("gzip", lambda body: gzip.compress(body)[:-5]),
    ("gzip", lambda body: gzip.compress(body) + b"\0" * 9),
    ("deflate", gzip.compress),
)


def good_requests() -> list[bytes]:
    """One of each kind that is answered with 200."""
    context = (("Tidegate-Context", CONTEXT),)
    head = b'{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}'
    binary = (("Inference-Header-Content-Length", str(len(head))), *context)
    body = tensors([0.5], parameters={"country": CANARY}, id="7")
    chunked = infer("quiet", b"", "attacker", ("Transfer-Encoding", "chunked"))
    chunked = chunked.replace(b"Content-Length: 0\r\n", b"") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    known = [("Tidegate-Caller", "attacker")]
    return [
        infer("quiet", body),
        infer("chain", tensors([0.5]), "attacker", *context),
        infer("quiet", head + bytes(4), "attacker", *binary),
        infer("quiet", gzip.compress(body), "attacker", ("Content-Encoding", "gzip")),
        chunked,
        v1("quiet/infer", json.dumps({"context": {"country": CANARY}, "inputs": {"X": [0.5]}}).encode()),
        v1("texts/infer?explain=true", json.dumps({"context": {}, "inputs": {"TEXT": ["a", ""]}}).encode()),
        v1("quiet/resolve", json.dumps({"context": {"city": CANARY}}).encode()),
        *(
            message("GET", path, known)
            for path in ("/v2", "/v2/models/quiet", "/v1/objectives", "/v1/objectives/texts")
        ),
    ]


def smashed_request(random: Random, seeds: Sequence[bytes]) -> bytes:
    """A good request, changed in up to four places."""
    return smashed(random.choice(seeds), random, random.choice((1, 1, 1, 2, 4)))


def odd_request(random: Random) -> bytes:
    """A request in proper HTTP whose parts are odd."""
    objective = random.choice(OBJECTIVES)
    path = random.choice(PATHS if random.random() < 0.4 else INFERENCES).replace("{o}", objective)
    method = random.choice(METHODS) if random.random() < 0.1 else "GET" if path.endswith(READ) else "POST"
    headers = [("Tidegate-Caller", "attacker")] if random.random() < 0.9 else []
    headers += random.sample(HEADERS, random.choice((0, 0, 1, 1, 2, 4)))
    body = b"" if method in ("GET", "HEAD") and random.random() < 0.9 else odd_body(random)
    if random.random() < 0.2:
        name, encode = random.choice(CODINGS)
        headers.append(("Content-Encoding", name))
        body = encode(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers)]
    if random.random() < 0.2:
        lines.append("Transfer-Encoding: chunked")
        step = random.choice((1, 7, 4096))
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _parts(body, step)) + b"0\r\n\r\n"
    elif body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def odd_body(random: Random) -> bytes:
    """A body: of `/v2` or `/v1` with odd members, or nothing of the kind."""
    kind = random.randrange(8)
    if kind == 0:
        return random.randbytes(random.choice((0, 1, 100, 5000)))
    if kind == 1:
        return random.choice(
            (
                b"[" * 2000,
                b'{"a":' * 2000,
                b'{"inputs":' + b"[" * 50_000,
                b"null",
                b"{}",
                b"[]",
                b'"',
                b"\xef\xbb\xbf{}",
            )
        )
    if kind in (2, 3):
        document = {
            "context": random.choice((*PARAMETERS, {})),
            "inputs": {random.choice(("X", "TEXT", "", "Y")): random.choice(DATA)},
        }
        return json.dumps(document).encode()
    inputs = [_odd_tensor(random) for _ in range(random.choice((1, 1, 1, 0, 2)))]
    document = {"inputs": random.choice((inputs, inputs, inputs, None, {}, "a"))}
    if random.random() < 0.4:
        document["parameters"] = random.choice(PARAMETERS)
    if random.random() < 0.2:
        document["outputs"] = random.choice(
            (
                [],
                [{}],
                [{"name": "Y"}],
                [{"name": "Z"}],
                None,
                [1],
                [{"name": "Y", "parameters": {"classification": 3}}],
            )
        )
    if random.random() < 0.2:
        document["id"] = random.choice(("", "a" * 5000, 1, None, "\ud800"))
    return json.dumps(document).encode() + random.choice((b"", b"", bytes(4), bytes(100)))


def _odd_tensor(random: Random) -> dict[str, object]:
    """A good tensor with up to three odd members."""
    tensor: dict[str, object] = {"name": "X", "datatype": "FP32", "shape": [1], "data": [0.5]}
    for member in random.sample(
        ("name", "datatype", "shape", "data", "size", "parameters"), random.choice((0, 1, 1, 2, 3))
    ):
        if member == "size":
            tensor.pop("data", None)
            tensor["parameters"] = {
                "binary_data_size": random.choice((0, 4, 100, -1, 1 << 62, 1 << 64, "4", None, 4.5))
            }
        else:
            tensor[member] = random.choice(MEMBERS[member])
    return tensor


def _parts(body: bytes, step: int) -> list[bytes]:
    return [body[start : start + step] for start in range(0, min(len(body), 200 * step), step)]
