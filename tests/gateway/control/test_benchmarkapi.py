"""Benchmarks over the admin API of a real gateway with stub engines; the measuring child is the real one."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.processes import Served, eventually, is_alive, stub_config

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PATH = "/admin/v1/benchmarks"
KEY = "secret-key-1"
SHORT = {
    "model": "demo", "concurrency": [2], "requests": 8, "repeats": 1, "output_tokens": 10, "input_tokens": 4, "ceiling": False,
}  # fmt: skip
LONG = {**SHORT, "output_tokens": 100_000}


@contextmanager
def gateway(home: Path, config: Path) -> Iterator[Served]:
    with Served(home, "--config", str(config)) as served:
        served.wait_ready()
        yield served


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return stub_config(tmp_path, "--token-s", "0.05", extra=f"keys: [{{name: app, key: {KEY}}}]\n")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def call(served: Served, method: str, path: str = "", body: Any = None, **headers: str) -> httpx.Response:
    token = (served.home / "admin-token").read_text().strip()
    sent = {"authorization": f"Bearer {token}", **headers}
    return httpx.request(method, f"{served.admin_url}{PATH}{path}", headers=sent, json=body, timeout=30)


def start(served: Served, body: Any) -> dict[str, Any]:
    reply = call(served, "POST", body=body)
    assert reply.status_code == 202, reply.text
    found: dict[str, Any] = reply.json()
    assert found["state"] == "running"
    return found


def refusal(served: Served, body: Any) -> tuple[int, str]:
    reply = call(served, "POST", body=body)
    return reply.status_code, reply.json()["error"]["message"]


def ended(served: Served, run_id: str) -> dict[str, Any]:
    eventually(lambda: call(served, "GET", f"/{run_id}").json()["state"] != "running", 60)
    found: dict[str, Any] = call(served, "GET", f"/{run_id}").json()
    return found


def children(served: Served) -> list[psutil.Process]:
    """Those that measure, and what they started."""
    return [child for child in served.tree() if "benchmarks.cli" in child.cmdline()]


def begun(served: Served) -> int:
    """The pid of the child, once it asks the engine."""
    eventually(lambda: served.engine()["num_requests"] > 0, 30)
    (child,) = children(served)
    return child.pid


def models(served: Served) -> dict[str, Any]:
    listed = httpx.get(f"{served.url}/v1/models", headers={"authorization": f"Bearer {KEY}"}).json()["data"]
    return {model["id"]: model["last_measured"] for model in listed}


def test_a_run_from_its_order_to_its_report(config: Path, home: Path) -> None:
    with gateway(home, config) as served:
        assert models(served) == {"demo": None}
        run = start(served, SHORT | {"who": "ann"})
        code, words = refusal(served, SHORT)
        assert code == 409
        assert f"benchmark {run['id']} is on" in words
        assert f"DELETE {PATH}/{run['id']}" in words
        page = httpx.get(f"{served.url}/metrics").text
        assert f'forgegate_benchmark_running{{benchmark="{run["id"]}",model="demo"}} 1.0' in page
        assert call(served, "GET", f"/{run['id']}/report").status_code == 409

        found = ended(served, run["id"])
        assert (found["state"], found["is_valid"], found["faults"]) == ("done", True, [])
        assert (found["num_done"], found["num_parts"], found["who"]) == (1, 1, "ann from 127.0.0.1")
        assert found["asked"] == run["asked"]
        (level,) = found["levels"]
        assert (level["load"], level["num_ok"], level["num_requests"]) == ("2 streams", 8, 8)
        assert level["output_tps"] > 0

        report = call(served, "GET", f"/{run['id']}/report").json()
        assert (report["format"], report["kind"], report["is_valid"]) == ("forgegate.benchmark", "run", True)
        assert report["levels"][0]["output_tps"]["median"] == level["output_tps"]
        for told in (
            call(served, "GET", f"/{run['id']}/report?format=html"),
            call(served, "GET", f"/{run['id']}/report", accept="text/html,*/*"),
        ):
            assert told.headers["content-type"].startswith("text/html")
            assert told.text.startswith("<!doctype html>")
        assert "format: expected json or html" in call(served, "GET", f"/{run['id']}/report?format=pdf").text
        token = (home / "admin-token").read_text().strip()
        kept = b"".join(path.read_bytes() for path in (home / "benchmarks").rglob("*") if path.is_file())
        assert token.encode() not in kept

        shown = models(served)["demo"]
        assert shown == {
            "output_tps": round(level["output_tps"], 1), "load": "2 streams", "at": int(found["ended"]), "benchmark": run["id"],
        }  # fmt: skip
        page = httpx.get(f"{served.url}/metrics").text
        assert "forgegate_benchmark_running{" not in page
        assert 'forgegate_benchmark_output_tokens_per_second{load="2 streams",model="demo"}' in page
        _nothing_unsound_is_begun(served)
        assert [one["id"] for one in call(served, "GET").json()["data"]] == [run["id"]]
        served.signal(signal.SIGTERM)
        assert served.wait() == 0
    with gateway(home, config) as served:
        assert call(served, "GET", f"/{run['id']}").json() == found
        assert call(served, "GET", f"/{run['id']}/report").json() == report
        assert models(served)["demo"] == shown


def _nothing_unsound_is_begun(served: Served) -> None:
    for changes, code, words in (
        ({"repeats": 0}, 400, "repeats: must be 1 to 20, got 0"),
        ({"model": "dmo"}, 404, "'dmo' is not served here; there are: demo"),
        ({"endpoint": "embeddings"}, 400, "endpoint: demo does not serve embeddings (it serves: chat)"),
        ({"endpoint": "audio"}, 400, "endpoint: "),
        ({"slo": "interactve"}, 400, "'interactve' is no service level objective: did you mean 'interactive'?"),
        ({"concurency": [1]}, 400, "concurency: "),
        ({"concurrency": 4}, 400, "concurrency: "),
    ):
        found = refusal(served, {**SHORT, **changes})
        assert found[0] == code, found
        assert words in found[1]
    assert call(served, "GET", "/nope").status_code == 404
    assert call(served, "DELETE", "/nope").status_code == 404
    assert httpx.post(f"{served.admin_url}{PATH}", json=SHORT).status_code == 401
    assert children(served) == []


def test_a_run_that_does_not_come_to_its_end(config: Path, home: Path) -> None:
    with gateway(home, config) as served:
        stopped = start(served, LONG)
        begun(served)
        assert call(served, "GET", f"/{stopped['id']}").json()["state"] == "running"
        found = call(served, "DELETE", f"/{stopped['id']}").json()
        assert (found["state"], found["detail"]) == ("stopped", "by 127.0.0.1")
        assert children(served) == []
        eventually(lambda: served.engine()["num_requests"] == 0, 20)
        assert call(served, "DELETE", f"/{stopped['id']}").json() == found, "it stays as it is"
        assert "has no result: stopped: by 127.0.0.1" in call(served, "GET", f"/{stopped['id']}/report").text

        killed = start(served, LONG)
        psutil.Process(begun(served)).kill()
        found = ended(served, killed["id"])
        assert (found["state"], found["detail"]) == ("failed", "it ended without a word (killed by SIGKILL)")

        late = start(served, LONG | {"limit_s": 2})
        assert "had not ended after 2 s" in ended(served, late["id"])["detail"]

        cut = start(served, LONG)
        child = begun(served)
        served.signal(signal.SIGKILL)
        served.wait()
        eventually(lambda: not is_alive(child), 10)
    with gateway(home, config) as served:
        found = call(served, "GET", f"/{cut['id']}").json()
        assert (found["state"], found["is_valid"], found["levels"]) == ("cut", None, [])
        assert found["detail"] == "the gateway ended while it ran: start it again"
        states = [run["state"] for run in call(served, "GET").json()["data"]]
        assert states == ["cut", "failed", "failed", "stopped"]
        assert models(served) == {"demo": None}

        start(served, LONG)
        begun(served)
        served.signal(signal.SIGTERM)  # a benchmark's requests are not waited for
        assert served.wait(10) == 0


def test_beside_users_only_by_force(config: Path, home: Path) -> None:
    body = {
        "model": "demo",
        "stream": True,
        "max_tokens": 100_000,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "x"}],
    }
    with gateway(home, config) as served, ExitStack() as users:
        leave = threading.Event()
        users.callback(leave.set)
        threads = [threading.Thread(target=_user, args=(served.url, body, leave), daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: served.engine()["num_requests"] == 8, 20)
        code, words = refusal(served, SHORT)
        assert code == 409
        assert words.startswith("users' requests take ")
        assert "of demo-0 (8.0 of " in words
        assert "`force: true`" in words
        run = start(served, SHORT | {"force": True})
        assert run["user_share"] > 0.1
        assert ended(served, run["id"])["state"] == "done"
        leave.set()
        for thread in threads:
            thread.join(10)
        eventually(lambda: served.engine()["num_requests"] == 0, 20)
        assert start(served, SHORT)["user_share"] == 0.0


@pytest.mark.engine
def test_the_demo_model_is_measured() -> None:
    with Served(Path(os.environ["FORGEGATE_HOME"]), "--port", "0", "--admin-port", "0") as served:
        served.wait_ready()
        body = {
            "model": "demo",
            "concurrency": [1, 4],
            "output_tokens": 32,
            "input_tokens": "8-32",
            "slo": "ttft_p99<60s",
            "repeats": 2,
        }
        found = ended(served, start(served, body)["id"])
        assert (found["state"], found["num_done"], found["num_parts"]) == ("done", 4, 4), found["detail"]
        assert [(level["load"], level["num_ok"]) for level in found["levels"]] == [("1 stream", 16), ("4 streams", 32)]
        assert found["resolved"].startswith("demo@")
        assert all(level["ttft_p50_s"] > 0 for level in found["levels"])


def _user(url: str, body: dict[str, Any], leave: threading.Event) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", content=json.dumps(body), headers=headers, timeout=30
    ) as reply:
        for _ in reply.iter_lines():
            if leave.is_set():
                return
