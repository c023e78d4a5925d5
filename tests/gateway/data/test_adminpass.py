"""vLLM's calls that load and unload adapters, passed on to the admin API."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.data import adminpass
from gateway.snapshot import Key
from tests.gateway.data.rig import ADMIN_TOKEN, Call, Rig, StubEngine, echo

ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN.decode()}"}
BODY = {"lora_name": "support", "lora_path": "/adapters/support"}


async def succeed(call: Call) -> None:
    await call.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nSuc\r\n4\r\ncess\r\n0\r\n\r\n"
    )


async def refuse(call: Call) -> None:
    await call.send_json(400, {"error": {"message": "lora_path: outside the roots", "param": "lora_path"}})


async def die(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12")
    call.kill()


async def babble(call: Call) -> None:
    await call.send(b"SSH-2.0-x\r\n\r\n")


@pytest.fixture
async def control(rig: Rig) -> StubEngine:
    """Stands in for the admin API: beside the engines, so that the rig stops it."""
    control = StubEngine(succeed)
    await rig.start(StubEngine(echo()))
    await control.start()
    rig.engines.append(control)
    rig.admin_url = f"http://127.0.0.1:{control.port}"
    rig.push("ready", "starting")
    return control


async def call(rig: Rig, path: str = adminpass.PATHS[0], headers: dict[str, str] | None = None) -> httpx.Response:
    async with rig.client() as client:
        return await client.post(path, json=BODY, headers=ADMIN if headers is None else headers)


@pytest.mark.parametrize("path", adminpass.PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        ADMIN,
        {"x-api-key": ADMIN_TOKEN.decode()},
        {"authorization": "Basic YWRhOng=", "x-api-key": ADMIN_TOKEN.decode()},
        {"authorization": f"bearer {ADMIN_TOKEN.decode()}", "x-forgegate-client": "forged"},
    ],
)
async def test_the_admins_call_is_passed_on_and_its_answer_back(
    rig: Rig, control: StubEngine, path: str, headers: dict[str, str]
) -> None:
    response = await call(rig, path, headers)
    assert (response.status_code, response.text) == (200, "Success")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    (received,) = control.calls
    assert received.head.startswith(b"POST /admin%b HTTP/1.1\r\n" % path.encode())
    assert received.header("authorization") == ADMIN["authorization"], "the token that was checked"
    assert received.header("x-forgegate-client") == "127.0.0.1"
    assert received.header("x-request-id") == response.headers["x-request-id"]
    assert received.json() == BODY


async def test_a_refusal_is_passed_back(rig: Rig, control: StubEngine) -> None:
    control.scripts = [refuse]
    response = await call(rig)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "lora_path")


async def test_only_the_admin_may(rig: Rig, control: StubEngine) -> None:
    sha256 = "e7cf3ef4f17c3999a94f2c6f612e8a888e5b1026878e4e19398b23bd38ec221a"  # of "Password"
    assert (await call(rig, headers={})).status_code == 401
    assert (await call(rig, headers={"authorization": "Bearer guess"})).status_code == 401
    rig.keys = (Key("app", sha256),)
    rig.push("ready", "starting")
    assert (await call(rig, headers={})).status_code == 401
    assert (await call(rig, headers={"authorization": "Bearer guess"})).status_code == 401
    forbidden = await call(rig, headers={"authorization": "Bearer Password"})
    assert (forbidden.status_code, forbidden.json()["error"]["code"]) == (403, "forbidden")
    assert control.calls == []
    assert (await call(rig)).status_code == 200


@pytest.mark.parametrize("script", [die, babble])
async def test_an_admin_api_that_breaks_off_is_503(rig: Rig, control: StubEngine, script: object) -> None:
    control.scripts = [script]  # type: ignore[list-item]
    response = await call(rig)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "control_unreachable")
    assert response.headers["retry-after"] == "2"


async def test_an_admin_api_that_is_not_there_is_503(rig: Rig, control: StubEngine) -> None:
    await control.stop()
    assert (await call(rig)).json()["error"]["code"] == "control_unreachable"
    rig.admin_url = ""
    rig.push("ready", "starting")
    assert (await call(rig)).json()["error"]["code"] == "control_unreachable"


async def test_an_admin_api_that_does_not_answer_is_left(
    rig: Rig, control: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(call: Call) -> None:
        await call.gone.wait()

    control.scripts = [hang]
    monkeypatch.setattr(adminpass, "ANSWER_S", 0.1)
    response = await call(rig)
    assert (response.status_code, response.json()["error"]["message"]) == (
        503,
        "the admin API did not answer in time",
    )
    await asyncio.wait_for(control.calls[0].gone.wait(), 1)


async def test_the_calls_take_post_only(rig: Rig, control: StubEngine) -> None:
    async with rig.client() as client:
        response = await client.get(adminpass.PATHS[0], headers=ADMIN)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
