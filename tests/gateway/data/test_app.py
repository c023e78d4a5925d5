"""The cold paths, through the same port."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.snapshot import Alias, Engine, Measured, Model, Share
from tests.gateway.data.rig import ADMIN_TOKEN, Rig, StubEngine, echo, post, read_answer

ADMIN_HEADERS = [{"authorization": f"Bearer {ADMIN_TOKEN.decode()}"}, {"x-api-key": ADMIN_TOKEN.decode()}]


async def test_models(rig: Rig) -> None:
    rig.capabilities = ("chat", "tokenize")
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        listed = (await client.get("/v1/models")).json()
        assert listed == {"object": "list", "data": [(await client.get("/v1/models/m")).json()]}
        assert listed["data"][0] == {
            "id": "m",
            "object": "model",
            "created": 5,
            "owned_by": "forgegate",
            "root": "m@0123456789ab",
            "parent": None,
            "context_length": 2048,
            "capabilities": ["chat", "tokenize"],
            "literal_special_text": False,
            "refused_options": [],
            "last_measured": None,
        }
        missing = await client.get("/v1/models/a/b")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"


async def test_a_measurement_is_shown_while_the_same_answers(rig: Rig) -> None:
    rig.hold("support@11", "m-0")
    rig.hold("support@22", "m-0")
    rig.split("support", **{"22": 1})
    found = {"output_tps": 1234.5, "load": "32 streams", "at": 1_700_000_000, "benchmark": "b-1"}
    rig.measured = (
        Measured("m", "m@0123456789ab", **found), Measured("support", "support@11", **found), Measured("support@11", "support@11", **found),
    )  # fmt: skip
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        shown = {entry["id"]: entry["last_measured"] for entry in (await client.get("/v1/models")).json()["data"]}
    assert shown == {"m": found, "support": None, "support@11": found, "support@22": None}


async def test_models_lists_aliases_and_versions(rig: Rig) -> None:
    rig.hold("support@11", "m-0")
    rig.hold("support@22")
    rig.hold("support@33", "m-0", is_candidate=True)
    rig.split("support", **{"11": 1})
    rig.aliases = (*rig.aliases, Alias("canary", "m", (Share("support@11", 9), Share("support@22", 1)), created=8))
    rig.capabilities = ("chat", "literal_special_text")
    rig.refused_options = ("min_p", "logit_bias")
    await rig.start(StubEngine(echo()))
    base = {
        "object": "model", "owned_by": "forgegate", "context_length": 2048, "capabilities": list(rig.capabilities),
        "literal_special_text": True, "refused_options": list(rig.refused_options), "last_measured": None,
    }  # fmt: skip
    async with rig.client() as client:
        listed = {entry["id"]: entry for entry in (await client.get("/v1/models")).json()["data"]}
        assert list(listed) == ["m", "support", "canary", "support@11", "support@22"]
        proven = {"proof": "proven", "gate": "ungated"}
        assert listed["support"] == base | {
            "id": "support", "created": 7, "root": "support@11", "parent": "m",
            "shares": [{"id": "support@11", "weight": 1, **proven}],
        }  # fmt: skip
        assert listed["canary"]["root"] is None
        assert [share["weight"] for share in listed["canary"]["shares"]] == [9, 1]
        assert listed["support@22"] == base | proven | {
            "id": "support@22", "created": 6, "root": "support@22", "parent": "m", "is_candidate": False,
            "is_resident": False,
        }  # fmt: skip
        for name, entry in listed.items():
            assert (await client.get(f"/v1/models/{name}")).json() == entry


async def test_models_shows_candidates_to_the_admin_alone(rig: Rig) -> None:
    rig.hold("support@33", "m-0", is_candidate=True)
    rig.split("support", **{"44": 1})  # to nothing that exists
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        hidden = await client.get("/v1/models/support@33")
        assert hidden.status_code == 404
        assert hidden.json()["error"]["message"] == "the model 'support@33' does not exist; there are: m"
        for headers in ADMIN_HEADERS:
            assert (await client.get("/v1/models/support@33", headers=headers)).json()["is_candidate"] is True
            listed = (await client.get("/v1/models", headers=headers)).json()["data"]
            assert [entry["id"] for entry in listed] == ["m", "support@33"]
        conflict = {**ADMIN_HEADERS[0], "x-api-key": "another"}
        assert (await client.get("/v1/models/support@33", headers=conflict)).status_code == 404


async def test_an_unknown_model_is_told_what_there_is(rig: Rig) -> None:
    rig.hold("support@11", "m-0")
    rig.split("support", **{"11": 1})
    await rig.start(StubEngine(echo()))
    for response in [await rig.ask({"model": "x"}), await rig.ask({"model": "support@00"})]:
        assert response.status_code == 404
        assert response.json()["error"]["message"].endswith("does not exist; there are: m, support")


async def test_ready_names_the_reasons(rig: Rig) -> None:
    await rig.start(StubEngine(echo()), StubEngine(echo()))
    async with rig.client() as client:
        assert (await client.get("/health/ready")).status_code == 200
        rig.push("starting", "failed")
        unready = await client.get("/health/ready")
        assert unready.status_code == 503
        assert unready.headers["retry-after"] == "1"
        assert "m-1: loading weights" in unready.json()["error"]["message"]
        assert (await client.get("/health/live")).status_code == 200
        rig.push("starting", "ready")
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("state", "is_on_demand", "is_ready"),
    [("ready", False, True), ("stopped", True, True), ("starting", True, True), ("starting", False, False),
     ("stopped", False, False), ("failed", True, False), ("backoff", False, False)],
)  # fmt: skip
async def test_ready_means_every_model(rig: Rig, state: str, is_on_demand: bool, is_ready: bool) -> None:
    await rig.start(StubEngine(echo()))
    engine = Engine("n-0", 1, "vllm", state, "h", 1, detail="so it is", is_on_demand=is_on_demand)
    newest = rig.relay.index.snapshot
    rig.relay.swap(replace(newest, models=(*newest.models, Model("n", "n", (engine,)))))
    async with rig.client() as client:
        response = await client.get("/health/ready")
        assert response.status_code == (200 if is_ready else 503)
        if not is_ready:
            assert response.json()["error"]["message"] == "no engine of model 'n' is ready (n-0: so it is)"
        assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nothing", 404, None),
        ("POST", "/v1/nothing", 404, None),
        ("GET", "/docs", 404, None),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("OPTIONS", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET, HEAD"),
        ("POST", "/metrics", 405, "GET, HEAD"),
    ],
)
async def test_errors_of_the_app_use_the_envelope(
    rig: Rig, method: str, path: str, status: int, allow: str | None
) -> None:
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req-test-")
    if allow:
        assert set(response.headers["allow"].split(", ")) == set(allow.split(", "))


async def test_who_takes_this_for_the_admin_api_is_told_so(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        response = await client.get("/admin/v1/adapters")
    assert (response.status_code, response.json()["error"]["message"]) == (
        404,
        "there is nothing at /admin/v1/adapters (clients ask here; the admin API has an address of its own: `forgegate serve` prints both)",
    )


async def test_head_has_no_body(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    reader, writer = await rig.raw()
    writer.write(b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n" + post(b'{"model":"m"}'))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (await read_answer(reader))[0] == 200
    writer.close()


async def test_hot_and_cold_share_a_connection(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    async with rig.client() as client:
        for _ in range(3):
            assert (await client.get("/v1/models")).status_code == 200
            assert (await client.post("/v1/completions", json={"model": "m"})).status_code == 200
        assert len(rig.relay.connections) == 1


async def test_metrics(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    await rig.ask()
    async with rig.client() as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    page = response.text
    assert 'forgegate_requests_total{engine="m-0",model="m",status="200"} 1.0' in page
    assert 'forgegate_engine_state{engine="m-0",model="m",state="ready"} 1.0' in page
    assert 'forgegate_requests_running{engine="m-0"} 0.0' in page
    assert 'forgegate_time_to_first_byte_seconds_count{engine="m-0",model="m"} 1.0' in page


async def test_client_that_leaves_a_cold_request(rig: Rig) -> None:
    await rig.start(StubEngine(echo()))
    _, writer = await rig.raw()
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    writer.transport.abort()
    async with rig.client() as client:
        assert (await client.get("/health/live")).status_code == 200
