"""Models whose engines run on demand, with real llama.cpp engines: nothing runs before somebody asks, and nobody is cut."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from backends.admin_client import AdminClient
from backends.demo.signatures import ADAPTERS_DIR, signature_of
from backends.plan import GIB, RAM
from backends.starttimes import StartTimes
from gateway.configfile import parse
from gateway.control.console import Console
from gateway.control.plans import plan_pools
from gateway.control.room import Rules
from gateway.control.runtime import Runtime
from gateway.control.supervisor import Means, backends_of
from gateway.home import Home
from tests.processes import Served, eventually, stub_python, write_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]

CONFIG = """
server: {port: 0, workers: 2, admin: {port: 0}}
models: [{name: demo, pools: [{engine: llamacpp, model: demo, resident: on_demand, idle_timeout_s: %s}]}]
"""
NUM_CLIENTS = 20
WAITED = "x-forgegate-engine-wait-ms"


@contextmanager
def serving(folder: Path, config: str) -> Iterator[Served]:
    path = folder / "forgegate.yaml"
    path.write_text(config, encoding="utf-8")
    with Served(folder / "home", "--config", str(path)) as served:
        served.wait_ready()
        yield served


def ask(served: Served, model: str = "demo", **more: Any) -> httpx.Response:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": model, "max_tokens": 12, "temperature": 0, "messages": question, **more}
    return httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)


def engines(served: Served) -> list[int]:
    """Pids of engine processes."""
    return [child.pid for child in served.tree() if "backends.llamacpp.server" in _words(child)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_nothing_runs_before_it_is_asked_for_and_one_start_answers_all(tmp_path: Path) -> None:
    with serving(tmp_path, CONFIG % 3) as served:
        assert engines(served) == []
        stopped = served.engine()
        assert (stopped["state"], stopped["detail"]) == ("stopped", "not started: the next request starts it")
        assert httpx.get(f"{served.url}/health/ready").status_code == 200
        assert [model["id"] for model in httpx.get(f"{served.url}/v1/models").json()["data"]] == ["demo"]

        with ThreadPoolExecutor(NUM_CLIENTS) as clients:
            answers = list(clients.map(lambda _: ask(served), range(NUM_CLIENTS)))
        assert [answer.status_code for answer in answers] == [200] * NUM_CLIENTS
        assert all(float(answer.headers[WAITED]) > 0 for answer in answers)
        assert served.engine()["num_restarts"] == 0
        assert WAITED not in ask(served).headers
        (first,) = engines(served)

        served.wait_for("engine", state="stopped", detail="idle for 3 s; the next request starts it")
        assert engines(served) == []
        again = ask(served)
        assert again.status_code == 200
        assert WAITED in again.headers
        assert engines(served) != [first]
        assert "the last start took" in served.wait_for("engine", state="starting")["detail"]


def stub_pool(folder: Path, *flags: str, more: str = "") -> str:
    """A configuration whose one model is served by a stub engine on demand."""
    gguf, python = write_gguf(folder / "stub.gguf"), stub_python(folder, *flags)
    pool = f"{{engine: llamacpp, model: {gguf}, python: {python}, resident: on_demand{more}}}"
    return f"server: {{port: 0, admin: {{port: 0}}}}\nmodels: [{{name: demo, pools: [{pool}]}}]\n"


def test_an_engine_with_a_request_is_not_idle_however_long_that_takes(tmp_path: Path) -> None:
    config = stub_pool(tmp_path, "--tokens", "60", "--token-s", "0.05", more=", idle_timeout_s: 0.5")
    with serving(tmp_path, config) as served:
        answer = ask(served, stream=True, max_tokens=60)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.text.count("delta") == 60
        served.wait_for("engine", state="stopped", detail="idle for 0.5 s; the next request starts it")
        assert served.engine()["num_restarts"] == 0


def test_an_engine_killed_while_it_starts_is_started_again_and_who_waits_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, CONFIG % 600) as served, ThreadPoolExecutor(4) as clients:
        answers = [clients.submit(ask, served) for _ in range(4)]
        (pid,) = eventually(lambda: engines(served))
        os.kill(pid, signal.SIGKILL)
        assert [answer.result().status_code for answer in answers] == [200] * 4
        assert served.engine()["num_restarts"] == 1


def test_a_start_that_fails_answers_503_with_its_reason(tmp_path: Path) -> None:
    config = stub_pool(tmp_path, "--refuse", "tensor data is cut off")
    with serving(tmp_path, config) as served:
        with ThreadPoolExecutor(NUM_CLIENTS) as clients:
            answers = list(clients.map(lambda _: ask(served), range(NUM_CLIENTS)))
        assert {answer.status_code for answer in answers} == {503}
        assert all("tensor data is cut off" in answer.json()["error"]["message"] for answer in answers)
        assert httpx.get(f"{served.url}/health/ready").status_code == 503
        assert ask(served).status_code == 503  # at once: it takes a command to try again


def test_a_start_that_failed_is_not_repeated_for_everyone_who_asks(tmp_path: Path) -> None:
    config = stub_pool(tmp_path, "--start-s", "600", more=", start_timeout_s: 0.5")
    with serving(tmp_path, config) as served:
        assert ask(served).status_code == 503
        for _ in range(5):
            begun_s = time.monotonic()
            answer = ask(served)
            assert time.monotonic() - begun_s < 1.0, "it waited for another start"
            assert (answer.status_code, int(answer.headers["retry-after"]) <= 5) == (503, True)
            assert "not ready within 0.5 s" in answer.json()["error"]["message"]
        assert served.engine()["num_restarts"] == 0
        assert httpx.get(f"{served.url}/health/ready").status_code == 200
        eventually(lambda: ask(served).status_code == 503 and served.engine()["num_restarts"] == 1)


def test_what_was_drained_by_command_is_not_started_by_requests(tmp_path: Path) -> None:
    with serving(tmp_path, CONFIG % 600) as served:
        assert ask(served).status_code == 200
        drained = served.admin("POST", "/admin/v1/engines/demo-0/drain")
        assert "was the only ready engine of demo" in drained["warning"]
        eventually(lambda: served.engine()["state"] == "stopped")
        refused = ask(served)
        assert refused.status_code == 503
        assert "drained by command: `forgegate engines wake demo-0` starts it" in refused.json()["error"]["message"]
        served.admin("POST", "/admin/v1/engines/demo-0/wake")
        eventually(lambda: served.engine()["state"] == "ready")
        assert ask(served).status_code == 200


def test_an_adapter_is_waited_for_together_with_its_engine(tmp_path: Path) -> None:
    config = CONFIG.replace("idle_timeout_s", "options: {max_adapters: 2}, idle_timeout_s") % 3
    with serving(tmp_path, config) as served:
        token = (served.home / "admin-token").read_text().strip()
        with AdminClient(served.admin_url, token) as admin:
            published = admin.publish(ADAPTERS_DIR / "pilot", "pilot")  # proven on an engine that was started for it
        assert published["version"].startswith("pilot@")
        for model in ("pilot", published["version"]):
            served.wait_for("engine", state="stopped", detail="idle for 3 s; the next request starts it")
            with ThreadPoolExecutor(8) as clients:
                answers = list(clients.map(lambda _: ask(served, model, max_tokens=40), range(8)))  # noqa: B023
            assert [answer.status_code for answer in answers] == [200] * 8
            texts = {answer.json()["choices"][0]["message"]["content"] for answer in answers}
            assert all(signature_of(text) == "pilot" for text in texts), texts


# Only one fits -------------------------------------------------------------------------------------------------------

TWO = """
server: {port: 0, workers: 2, admin: {port: 0}}
models:
  - {name: one, pools: [{engine: llamacpp, model: demo, resident: on_demand}]}
  - {name: two, pools: [{engine: llamacpp, model: demo, resident: on_demand}]}
"""
NEED = 6 * GIB


class Narrow:
    """Memory of a machine on which one engine fits, as the processes that run here from now on take it."""

    def __init__(self) -> None:
        self.max_engines = 0
        self._others = set(self._engines())

    def free(self, devices: Iterable[str]) -> Mapping[str, int]:
        num_engines = len(set(self._engines()) - self._others)
        self.max_engines = max(self.max_engines, num_engines)
        return {RAM: 10 * GIB - NEED * num_engines}

    def _engines(self) -> list[psutil.Process]:
        """Other tests may keep some, too."""
        return [p for p in psutil.Process().children(recursive=True) if "backends.llamacpp.server" in _words(p)]

    def held(self, pid: int, devices: Iterable[str]) -> Mapping[str, int] | None:
        return {RAM: NEED}

    def holders(self, device: str) -> str:
        return ""


class Load:
    """Streams to both models for a while; every one must come to its end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ends: Counter[str] = Counter()
        self.failures: list[str] = []

    async def client(self, http: httpx.AsyncClient, model: str, until: float) -> None:
        body = {
            "model": model,
            "max_tokens": 60,
            "stream": True,
            "messages": [{"role": "user", "content": "Tell me a story."}],
        }
        while time.monotonic() < until:
            async with http.stream("POST", f"{self.url}/v1/chat/completions", json=body) as reply:
                text = (await reply.aread()).decode()
            if reply.status_code == 200 and text.endswith("data: [DONE]\n\n") and '"error"' not in text:
                self.ends[model] += 1
            else:
                self.failures.append(f"{model}: {reply.status_code} {text[-300:]}")


@pytest.mark.timeout(240)
async def test_two_models_of_which_one_fits_take_turns_and_nobody_is_cut(tmp_path: Path) -> None:
    config, home, told = parse(TWO), Home(tmp_path / "home"), io.StringIO()
    home.ensure()
    memory = Narrow()
    pools = backends_of(config, home)
    plans = [_needing(pool.plan) for pool in plan_pools(pools)]
    rules = Rules(turn_s=3.0, release_s=60.0, max_wait_s=120.0)
    means = Means(memory, StartTimes(tmp_path / "times.json"), rules)
    runtime = await Runtime.open(config, pools, home, Console(True, out=told), plans, means)
    async with runtime, httpx.AsyncClient(timeout=120) as http:
        await runtime.settle()
        load = Load(runtime.url)
        until = time.monotonic() + 45
        await asyncio.gather(*(load.client(http, model, until) for model in ("one", "two") for _ in range(3)))
        await runtime.drain()
    assert load.failures == []
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    starts = Counter(event["engine"] for event in events if event["event"] == "engine" and event["state"] == "ready")
    assert starts["one-0"] >= 2, starts
    assert starts["two-0"] >= 2, starts
    assert min(load.ends["one"], load.ends["two"]) >= 14, load.ends
    assert memory.max_engines == 1
    details = " ".join(event["detail"] for event in events if event["event"] == "engine")
    assert "is idle or its turn is over" in details
    assert "it made way for" in details


def _needing(plan: Any) -> Any:
    """Engines that need `NEED`, whatever they take indeed."""
    assert plan is not None
    (use,) = plan.uses
    return replace(plan, uses=(replace(use, weights_bytes=NEED - use.total_bytes + use.weights_bytes, shared_bytes=0),))
