"""What a caller may see: the objectives that it is granted, and nothing of the fleet, its models' insides or its secrets."""

from __future__ import annotations

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from tests.isolation.place import SECRET_PATH, Order, Place, infer, v1
from tests.support.stack import eventually
from tests.support.wire import Reply, ask, message

ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


def get(place: Place, path: str, caller: str | None = "attacker") -> Reply:
    return place.ask(message("GET", path, [("Tidegate-Caller", caller)] if caller else []))


@pytest.mark.parametrize("caller", [None, "attacker", "bystander", "operator"])
@pytest.mark.parametrize("token", ["", "Bearer", "Bearer ", "Bearer None", "Bearer " + "a" * 32, "Basic b3BlcmF0b3I6"])
def test_the_fleet_is_for_operators(place: Place, token: str, caller: str | None) -> None:
    headers = [("Tidegate-Caller", caller)] if caller else []
    for name in ("Authorization", "Tidegate-Operator"):
        reply = place.ask(message("GET", "/v1/fleet", [*headers, *([(name, token)] if token else [])]))
        assert reply.status in (401, 403)
        assert not ADDRESS.search(reply.body.decode())


def test_an_objective_of_others_cannot_be_distinguished_from_one_that_nobody_has(place: Place) -> None:
    requests = {
        "metadata": lambda name: message("GET", f"/v2/models/{name}", [("Tidegate-Caller", "stranger")]),
        "ready": lambda name: message("GET", f"/v2/models/{name}/ready", [("Tidegate-Caller", "stranger")]),
        "contract": lambda name: message("GET", f"/v1/objectives/{name}", [("Tidegate-Caller", "stranger")]),
        "infer": lambda name: infer(name, (0.5,), "stranger"),
        "broken infer": lambda name: infer(name, b"{", "stranger"),
        "v1 infer": lambda name: v1(f"{name}/infer", b"{}", "stranger"),
        "resolve": lambda name: v1(f"{name}/resolve", b"{}", "stranger"),
    }
    for request in requests.values():
        ours, nobodys = place.ask(request("quiet")), place.ask(request("quest"))
        assert ours.status == nobodys.status
        assert ours.body.replace(b"quiet", b"NAME") == nobodys.body.replace(b"quest", b"NAME")
        assert ours.headers.keys() == nobodys.headers.keys()


def test_a_caller_sees_its_own_objectives_alone(place: Place) -> None:
    assert [each["name"] for each in get(place, "/v1/objectives", "stranger").json()["objectives"]] == ["slow"]
    assert get(place, "/v1/objectives", "nobody").status == 403
    assert get(place, "/v1/objectives", None).status == 403


def test_servers_take_orders_from_nobody_who_lacks_their_secret(place: Place) -> None:
    ports = [urlsplit(each["url"]).port for each in place.stack.fleet()["a"]]
    orders = [
        message("POST", "/v2/repository/index"),
        message("POST", "/v2/repository/models/quiet/unload"),
        message("POST", "/v2/repository/models/quiet/load"),
        message("POST", "/v2/logging", body=b"{}"),
        message("GET", "/v2/trace/setting"),
        message("GET", "/v2/systemsharedmemory/status"),
    ]
    for port in ports:
        assert port is not None
        for order in orders:
            reply = ask(port, order)
            assert reply is not None
            assert reply.status == 403, order
    place.wait_whole()


@pytest.mark.parametrize("path", ["repository/index", "repository/models/quiet/unload", "logging", "trace/setting",
                                  "systemsharedmemory/status", "cudasharedmemory/status",
                                  "systemsharedmemory/region/a/register"])  # fmt: skip
def test_management_is_not_for_callers(place: Place, path: str) -> None:
    for method in ("GET", "POST"):
        assert place.ask(message(method, f"/v2/{path}", [("Tidegate-Caller", "attacker")])).status in (403, 404, 405)


@pytest.mark.parametrize("objective", ["fragile", "chain"])
@pytest.mark.parametrize("api", ["v1", "v2"])
def test_a_models_exception_stays_inside_and_its_correlation_id_finds_it(
    place: Place, objective: str, api: str
) -> None:
    body = json.dumps({"inputs": {"X": [Order.RAISE]}}).encode()
    request = infer(objective, (Order.RAISE,)) if api == "v2" else v1(f"{objective}/infer", body)
    reply = place.ask(request)
    text = reply.body.decode()
    assert reply.status == 500
    assert SECRET_PATH not in text
    assert "licence" not in text
    assert ".py" not in text
    (found,) = re.findall(r"[0-9a-f]{16}", text)
    assert eventually(lambda: found in place.stack.errors)
    assert SECRET_PATH in place.stack.errors


def test_no_address_of_a_server_is_in_an_answer(place: Place) -> None:
    requests = [
        infer("quiet"), infer("quiet", b"{"), infer("slow", (0.5,), "attacker", ("Tidegate-Timeout-Ms", "20")),
        infer("fragile", (Order.RAISE,)), infer("nowhere"), message("GET", "/v2"), message("GET", "/v2/models/quiet/config"),
        message("GET", "/v2/models/quiet/stats", [("Tidegate-Caller", "attacker")]),
    ]  # fmt: skip
    for request in requests:
        reply = place.ask(request)
        assert not ADDRESS.search(reply.body.decode() + str(reply.headers)), request


def test_the_stack_listens_on_loopback_alone(place: Place) -> None:
    with socket.socket() as probe:
        probe.settimeout(2)
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            assert probe.connect_ex((own, place.port)) != 0
