"""`forgegate serve` as users start it, with stub engines: whole process trees."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.processes import ROOT, Served, eventually, is_alive, stub_config, write_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BODY = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


class Stream(threading.Thread):
    """One streamed answer, read in the background."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.lines: list[str] = []
        self.has_begun = threading.Event()
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=BODY, timeout=30) as reply:
                for line in reply.iter_lines():
                    self.lines.append(line)
                    self.has_begun.set()
        except httpx.HTTPError as exc:
            self.error = exc
        finally:
            self.has_begun.set()

    def wait_begun(self) -> None:
        assert self.has_begun.wait(10)
        assert self.error is None


def test_two_workers_serve_and_the_admin_api_tells(tmp_path: Path, home: Path) -> None:
    config = stub_config(tmp_path, workers=2, replicas=2, extra="keys: [{name: app, key: secret-key-1}]\n")
    with Served(home, "--config", str(config)) as served:
        ready = served.wait_ready()
        assert ready["models"] == {"demo": ["2 x llama.cpp on stub"]}
        assert len(served.workers()) == 2
        url = f"{served.url}/v1/chat/completions"
        assert httpx.post(url, json=BODY).status_code == 401
        reply = httpx.post(url, json=BODY, headers={"authorization": "Bearer secret-key-1"})
        assert reply.status_code == 200
        assert reply.text.endswith("data: [DONE]\n\n")

        engine = served.engine("demo-1")
        assert (engine["state"], engine["description"], engine["num_restarts"]) == ("ready", "llama.cpp on stub", 0)
        assert engine["load"] == {"num_running": 0, "num_waiting": 0, "kv_usage": 0.0}
        (model,) = served.admin("GET", "/admin/v1/models")["data"]
        assert (model["name"], model["context_length"], model["num_ready"]) == ("demo", 2048, 2)
        assert served.admin("GET", "/admin/v1/engines/demo-0/logs?lines=1")["lines"]

        _refusals_are_envelopes(served)
        _the_command_line_finds_it(served)
        served.signal(signal.SIGINT)
        assert served.wait() == 0
    assert not (home / "run" / "serve.json").exists()
    assert list((home / "run").glob("metrics-*")) == []


def _refusals_are_envelopes(served: Served) -> None:
    token = (served.home / "admin-token").read_text().strip()
    good = {"authorization": f"Bearer {token}"}
    cases = [
        ("GET", "/admin/v1/engines", {}, 401, "admin token"),
        ("GET", "/admin/v1/engines", {"authorization": "Bearer wrong"}, 401, "admin token"),
        ("POST", "/admin/v1/engines/demo-0/restart", {"authorization": token[:-1]}, 401, "admin token"),
        ("GET", "/admin/v1/engines/nope/logs", good, 404, "there are: demo-0, demo-1"),
        ("GET", "/admin/v1/engines/demo-0/logs?lines=0", good, 400, "lines"),
        (
            "POST",
            "/admin/v1/engines/demo-0/sleep",
            good,
            409,
            "llama.cpp engines do not; `forgegate engines drain demo-0`",
        ),
        ("POST", "/admin/v1/engines/demo-0/sleep?level=3", good, 400, "level"),
        ("POST", "/admin/v1/engines/nope/drain", good, 404, "there are: demo-0, demo-1"),
        ("GET", "/admin/v1/nothing", good, 404, "no such path"),
        ("DELETE", "/admin/v1/engines", good, 405, "DELETE is not possible"),
    ]
    for method, path, headers, status, words in cases:
        reply = httpx.request(method, served.admin_url + path, headers=headers)
        assert reply.status_code == status, path
        assert words in reply.json()["error"]["message"]
    paths = httpx.get(f"{served.admin_url}/openapi.json").json()["paths"]
    assert set(paths) == {
        "/admin/v1/engines", "/admin/v1/engines/{engine_id}/logs", "/admin/v1/engines/{engine_id}/restart",
        "/admin/v1/engines/{engine_id}/drain", "/admin/v1/engines/{engine_id}/sleep", "/admin/v1/engines/{engine_id}/wake",
        "/admin/v1/engines/{engine_id}/tune", "/admin/v1/models",
        "/admin/v1/workers", "/admin/v1/adapters", "/admin/v1/adapters/{name}", "/admin/v1/adapters/{name}/pin",
        "/admin/v1/adapters/{name}/unpin", "/admin/v1/adapters/{name}/unload", "/admin/v1/aliases", "/admin/v1/aliases/{name}",
        "/admin/v1/aliases/{name}/rollback", "/admin/v1/load_lora_adapter", "/admin/v1/unload_lora_adapter",
        "/admin/v1/aliases/{name}/watch", "/admin/v1/aliases/{name}/unwatch", "/admin/v1/verdicts", "/admin/v1/votes",
        "/admin/v1/benchmarks", "/admin/v1/benchmarks/{benchmark_id}", "/admin/v1/benchmarks/{benchmark_id}/report",
    }  # fmt: skip
    assert httpx.get(f"{served.admin_url}/docs").status_code == 200


def _the_command_line_finds_it(served: Served) -> None:
    def run(*arguments: str) -> str:
        env = {**os.environ, "FORGEGATE_HOME": str(served.home), "FORGEGATE_API_KEY": "secret-key-1"}
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            input="hi",
        )
        return done.stdout

    assert "demo-1" in run("engines", "list")
    assert json.loads(run("engines", "list", "--json"))[0]["state"] == "ready"
    assert "1/1" not in run("models", "list")
    assert "2/2" in run("models", "list")
    assert "listening on" in run("engines", "logs", "demo-0")
    assert run("chat").split() == ["t0", "t1", "t2", "t3", "t4"]
    stopped = "drained by command: `forgegate engines wake demo-1` starts it"
    assert run("engines", "drain", "demo-1") == f"demo-1: stopped ({stopped})\n"
    assert stopped in run("engines", "list")
    assert run("engines", "wake", "demo-1") == "demo-1: ready (llama.cpp on stub)\n"
    assert run("engines", "wake", "demo-1", "--json") == '{"id": "demo-1", "state": "ready"}\n'
    assert run("engines", "restart", "demo-1", "--no-wait") == "demo-1: restarting\n"


def test_connections_spread_and_a_stopped_worker_is_named_by_the_call_that_replaced_it(
    tmp_path: Path, home: Path
) -> None:
    with Served(home, "--config", str(stub_config(tmp_path, workers=4))) as served:
        served.wait_ready()
        port = int(served.url.rpartition(":")[2])
        with ExitStack() as clients:
            for _ in range(64):
                clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            workers = eventually(lambda: _workers_with(served, 64), 20)
        assert [worker["state"] for worker in workers] == ["ready"] * 4
        nums = [worker["num_connections"] for worker in workers]
        assert max(nums) <= 32, nums  # 16 each where there is a core for each
        eventually(lambda: _workers_with(served, 0))
        os.kill(workers[2]["pid"], signal.SIGSTOP)
        restarted = served.admin("POST", "/admin/v1/engines/demo-0/restart")
        assert (restarted["state"], restarted["replaced_workers"]) == ("draining", [2])
        replaced = eventually(lambda: [w for w in _workers(served) if w["num_restarts"] and w["state"] == "ready"])
        assert [(worker["column"], worker["detail"]) for worker in replaced] == [(2, "killed by SIGKILL")]
        served.wait_for("engine", state="ready")
        assert served.admin("POST", "/admin/v1/engines/demo-0/restart")["replaced_workers"] == []


def _workers(served: Served) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = served.admin("GET", "/admin/v1/workers")["data"]
    return workers


def _workers_with(served: Served, num_connections: int) -> list[dict[str, Any]]:
    workers = _workers(served)
    return workers if sum(worker["num_connections"] for worker in workers) == num_connections else []


def test_restart_and_a_killed_engine(tmp_path: Path, home: Path) -> None:
    with Served(home, "--config", str(stub_config(tmp_path))) as served:
        served.wait_ready()
        first = served.engine()["pid"]
        served.admin("POST", "/admin/v1/engines/demo-0/restart")
        served.wait_for("engine", state="draining")
        second = served.wait_for("engine", state="ready")["pid"]
        assert second != first
        os.kill(second, signal.SIGKILL)
        assert "killed by SIGKILL" in served.wait_for("engine", state="backoff")["detail"]
        served.wait_for("engine", state="ready")
        assert httpx.post(f"{served.url}/v1/chat/completions", json=BODY).status_code == 200
        assert served.engine()["num_restarts"] == 2


def test_ctrl_c_lets_a_running_stream_finish(tmp_path: Path, home: Path) -> None:
    with Served(home, "--config", str(stub_config(tmp_path, "--tokens", "40", "--token-s", "0.05"))) as served:
        served.wait_ready()
        stream = Stream(served.url)
        stream.wait_begun()
        served.signal(signal.SIGINT)
        served.wait_for("note")
        port = int(served.url.rpartition(":")[2])
        eventually(lambda: _is_refused(port), 1)
        assert stream.is_alive()  # refused while the running stream goes on
        assert served.wait() == 0
        stream.join(5)
    assert stream.error is None
    assert stream.lines[-2:] == ["data: [DONE]", ""]
    assert sum("delta" in line for line in stream.lines) == 40


def _is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_second_ctrl_c_ends_everything_at_once(tmp_path: Path, home: Path) -> None:
    with Served(
        home, "--config", str(stub_config(tmp_path, "--tokens", "600", "--token-s", "0.1", "--deaf"))
    ) as served:
        served.wait_ready()
        stream = Stream(served.url)
        stream.wait_begun()
        tree = [process.pid for process in served.tree()]
        served.signal(signal.SIGINT)
        served.wait_for("note")
        time.sleep(0.2)
        start = time.monotonic()
        served.signal(signal.SIGINT)
        assert served.wait() == 0
        assert time.monotonic() - start < 4
        stream.join(5)
    assert not any(map(is_alive, tree))
    assert stream.lines[-2:] != ["data: [DONE]", ""]  # cut short, and it does not look like success


@pytest.mark.parametrize(
    "escape", [(), ("--escape",)], ids=["grandchild in the group", "grandchild with its own session"]
)
def test_sigkill_of_control_leaves_nothing_after_two_seconds(
    tmp_path: Path, home: Path, escape: tuple[str, ...]
) -> None:
    pid_file = tmp_path / "grandchild"
    config = stub_config(tmp_path, "--deaf", "--grandchild", str(pid_file), *escape, workers=2)
    with Served(home, "--config", str(config)) as served:
        served.wait_ready()
        tree = {process.pid for process in served.tree()} | {int(pid_file.read_text())}
        assert len(tree) >= 5  # guardian, two workers, engine, grandchild
        served.process.kill()
        served.wait()
        eventually(lambda: not any(map(is_alive, tree)), 2)
    with Served(
        home, "--config", str(stub_config(tmp_path))
    ) as again:  # nothing in the home is in the way of the next start
        again.wait_ready()


def test_an_engine_that_is_refused_ends_serve_with_its_reason(tmp_path: Path, home: Path) -> None:
    with Served(home, "--config", str(stub_config(tmp_path, "--refuse", "tensor data is cut off"))) as served:
        assert served.wait() == 3
        assert served.process.stderr is not None
        first, second, *last_lines = served.process.stderr.read().splitlines()
    assert (first, second) == ("error: no engine could be started", "engine demo-0: tensor data is cut off")
    assert "  | error: tensor data is cut off" in last_lines


def test_ctrl_c_while_engines_still_load(tmp_path: Path, home: Path) -> None:
    with Served(home, "--config", str(stub_config(tmp_path, "--start-s", "600"))) as served:
        served.wait_for("engine", state="starting")
        eventually(lambda: (home / "run" / "serve.json").exists())
        served.signal(signal.SIGINT)
        assert served.wait() == 0


def test_ports_and_homes_in_use(tmp_path: Path, home: Path) -> None:
    config = stub_config(tmp_path)

    def refused(*arguments: str) -> str:
        with Served(home, "--config", str(config), *arguments) as other:
            assert other.wait() == 3
            assert other.process.stderr is not None
            return other.process.stderr.read()

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert f"error: endpoint: port {port} is in use" in refused("--port", str(port))
        assert f"error: admin API: port {port} is in use" in refused("--admin-port", str(port))
    with Served(home, "--config", str(config)) as served:
        served.wait_ready()
        error = refused()
        assert f"already running with home {home} (pid {served.process.pid}, {served.url})" in error
        assert len(error.splitlines()) == 1


def test_a_remote_engine_that_comes_up_later(tmp_path: Path, home: Path, free_port: object) -> None:
    port = free_port()  # type: ignore[operator]
    with Served(
        home, "--engine", "remote", "--model", f"http://127.0.0.1:{port}", "--port", "0", "--admin-port", "0"
    ) as served:
        served.wait_for("engine", state="backoff", timeout_s=20)
        stub = [
            sys.executable,
            str(ROOT / "tests" / "stub_engine.py"),
            "--port",
            str(port),
            "--served-model-name",
            "theirs",
        ]
        with subprocess.Popen(stub, stdout=subprocess.DEVNULL) as engine:
            served.wait_ready()
            reply = httpx.post(f"{served.url}/v1/chat/completions", json={**BODY, "model": "remote"})
            assert reply.status_code == 200
            assert reply.headers["x-forgegate-engine"] == "remote-0"
            engine.terminate()


def test_pools_with_weights_of_another_source_are_refused(tmp_path: Path, home: Path) -> None:
    config = stub_config(tmp_path)
    write_gguf(tmp_path / "stub.gguf", "sha256:" + "ab" * 32)
    other = write_gguf(tmp_path / "other.gguf", "sha256:" + "cd" * 32)
    python = next(tmp_path.glob("python-*"))
    config.write_text(config.read_text() + f"      - {{engine: llamacpp, model: {other}, python: {python}}}\n")
    with Served(home, "--config", str(config)) as served:
        served.wait_ready()
        states = {engine["id"]: engine for engine in served.admin("GET", "/admin/v1/engines")["data"]}
        refused = [engine for engine in states.values() if engine["state"] == "failed"]
        assert len(refused) == 1
        assert "its weights" in refused[0]["detail"]


def test_a_killed_worker_is_replaced(tmp_path: Path, home: Path) -> None:
    with Served(home, "--config", str(stub_config(tmp_path, "--tokens", "100", "--token-s", "0.1"))) as served:
        served.wait_ready()
        stream = Stream(served.url)
        stream.wait_begun()
        eventually(lambda: served.engine()["num_requests"] == 1)
        (worker,) = served.workers()
        psutil.Process(worker).kill()
        assert "killed by SIGKILL" in served.wait_for("worker")["detail"]
        stream.join(5)
        eventually(lambda: served.engine()["num_requests"] == 0)
        eventually(lambda: _answers(f"{served.url}/health/ready"))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
