"""The route over a real socket, as the client and `forgegate engines tune` see it; the engines are real children."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from backends.status import State
from backends.vllm.speculation import Setting
from gateway.control.adapterapi import AdapterApi
from gateway.control.app import AdminApi, create_app
from gateway.control.tuneapi import TuneApi
from tests.gateway.control.tuning_rig import Rig, rig

TOKEN = "the-token"
GOOD = {"authorization": f"Bearer {TOKEN}"}
PATH = "/admin/v1/engines/demo-0/tune"


@asynccontextmanager
async def served(parts: Rig, port: int) -> AsyncIterator[str]:
    nothing: Any = None  # the other routes are not called
    engines, adapters = AdminApi(nothing, nothing, nothing, nothing), AdapterApi(nothing, nothing, ())
    app = create_app(engines, TOKEN, "0", adapters, TuneApi(parts.tuning))
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    )
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def command(url: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "gateway", "engines", "tune", *arguments, "--admin-url", url]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"FORGEGATE_ADMIN_TOKEN": TOKEN}, **options
    )


async def run(url: str, *arguments: str) -> tuple[int, str, str]:
    with command(url, *arguments) as process:
        out, err = await asyncio.to_thread(process.communicate, timeout=60)
        return process.returncode, out, err


@pytest.fixture(autouse=True)
def two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.tuneload.MAX_ROUNDS", 2)


@pytest.mark.slow
async def test_the_command_shows_what_was_measured(tmp_path: Path, free_port: Callable[[], int]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\n two \n")
    async with rig(tmp_path) as parts, served(parts, free_port()) as url:
        wanted = ("demo-0", "--streams", "1,4", "--depths", "2", "--tokens", "16", "--prompts", str(prompts), "--yes")
        code, out, err = await run(url, *wanted)
        assert (code, err.splitlines()[0]) == (0, "waiting for its running requests to end")
        heads, one, four, _, chosen, *_ = out.splitlines()
        assert heads.split("  ")[0] == "STREAMS"
        assert one.split()[0] == "1"
        assert one.split()[-2:] == ["depth", "2"]
        assert four.split()[-1] == "off"
        assert chosen == "demo-0 has now speculation: depth by streams: 2 up to 2, then off (before: depth 2)"
        assert "speculation off: " in err
        code, out, _ = await run(url, *wanted, "--json")
        assert code == 0
        assert [row["streams"] for row in json.loads(out)["streams"]] == [1, 4]


@pytest.mark.slow
async def test_ctrl_c_puts_the_engine_back(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with rig(tmp_path) as parts, served(parts, free_port()) as url:
        with command(url, "demo-0", "--yes", "--tokens", "1000") as process:
            assert process.stderr is not None
            while "speculation off" not in (line := await asyncio.to_thread(process.stderr.readline)):
                assert line, "it ended by itself"
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 10) == 130
            assert process.stderr.read().splitlines()[-1] == "broken off: demo-0 starts again as it was"
        await parts.ready()
        assert parts.backend.started[-1] == Setting(2)
        assert not (tmp_path / "speculation.json").exists()


@pytest.mark.slow
async def test_wrong_orders_are_refused_in_one_sentence(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with rig(tmp_path) as parts, served(parts, free_port()) as url:
        async with httpx.AsyncClient(base_url=url, headers=GOOD) as client:

            async def refusal(**body: Any) -> tuple[int, str]:
                reply = await client.post(PATH, json=body)
                return reply.status_code, reply.json()["error"]["message"]

            assert await refusal(num_tokens=0) == (400, "num_tokens: must be 1 to 4096, got 0")
            assert await refusal(passes=11) == (400, "passes: must be 1 to 10, got 11")
            assert await refusal(prompts=[""]) == (400, "prompts: at most 1000, none of them empty")
            assert (await refusal(streams="x"))[0] == 400
            assert (await refusal(stream=[1]))[0] == 400, "an unknown field"
            assert (await refusal())[0] == 409
            assert (await client.post(PATH, headers={"authorization": "Bearer x"})).status_code == 401
            unknown = await client.post(PATH.replace("demo-0", "org/x-0"), json={})
            assert unknown.json()["error"]["message"] == "no engine 'org/x-0'; there are: demo-0"
        code, _, err = await run(url, "demo-0")
        assert code == 2
        assert err.startswith("error: no other engine of demo is ready")
        for wrong in (("--prompts", str(tmp_path / "none")), ("--streams", "1,x")):
            code, _, err = await run(url, "demo-0", "--yes", *wrong)
            assert code == 2
            assert wrong[0] in err
        assert parts.life.status.state is State.READY
        assert parts.backend.started == [Setting(2)]
