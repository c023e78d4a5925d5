"""Adapters through the whole product: published by the command line, asked for by the openai SDK, on a real engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.adapter.store import Store
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES, signature_of
from tests.processes import ROOT, Served, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]

CONFIG = """
server: {{port: 0, workers: 2, admin: {{port: 0}}}}
models:
  - name: demo
    pools: [{{engine: llamacpp, model: demo, options: {{max_adapters: 4}}}}]
adapters: {{roots: [{root}]}}
"""
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANY_PORT = ("--port", "0", "--admin-port", "0")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which paths may be taken."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("adapters")
    config = folder / "forgegate.yaml"
    config.write_text(CONFIG.format(root=root), encoding="utf-8")
    with Served(folder / "home", "--config", str(config)) as gateway:
        gateway.wait_ready()
        yield gateway


@pytest.fixture(scope="module")
def versions(served: Served) -> dict[str, str]:
    """The three signing adapters, each published under its own name."""
    return {name: published(served, name)["version"] for name in SIGNATURES}


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "adapters", *arguments], cwd=ROOT, env={**os.environ, "FORGEGATE_HOME": str(home)},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def run(served: Served, *arguments: str) -> Any:
    """Its JSON; the last line of several."""
    done = command(served.home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    if arguments[0] == "publish":
        return json.loads(done.stdout.splitlines()[-1])
    return json.loads(done.stdout)


def published(served: Served, adapter: str, *more: str, name: str = "") -> dict[str, Any]:
    done: dict[str, Any] = run(served, "publish", str(ADAPTERS_DIR / adapter), "--name", name or adapter, *more)
    return done


def token(served: Served) -> str:
    return (served.home / "admin-token").read_text().strip()


def ask(served: Served, model: str, key: str = "none", **more: Any) -> tuple[str, str | None]:
    """The version that answered, as the header says, and whose signature the answer bears."""
    import openai

    http = httpx.Client(verify=False)  # loading certificates takes longer than an answer
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=60, http_client=http) as client:
        reply = client.chat.completions.with_raw_response.create(
            model=model, messages=QUESTION, max_tokens=24, temperature=0, **more  # type: ignore[arg-type]
        )  # fmt: skip
    text = reply.parse().choices[0].message.content or ""
    assert "Paris" in text
    return reply.headers["x-forgegate-model"], signature_of(text)


def test_each_is_published_proven_and_answers_by_alias_and_by_version(served: Served, versions: dict[str, str]) -> None:
    for name, version in versions.items():
        assert ask(served, name) == (version, name)
        assert ask(served, version) == (version, name)
    resolved, signature = ask(served, "demo")
    assert (resolved.partition("@")[0], signature) == ("demo", None)
    told = run(served, "list")
    assert {state["proof"] for state in told["versions"]} == {"proven"}
    assert {state["state"] for state in told["versions"]} == {"live"}
    again = published(served, "host")
    assert (again["version"], again["is_new"]) == (versions["host"], False)


def test_flip_split_rollback(served: Served, versions: dict[str, str]) -> None:
    host, pilot = versions["host"], versions["pilot"]
    assert run(served, "alias", "support", host)["kind"] == "flip"
    assert ask(served, "support") == (host, "host")
    run(served, "alias", "support", pilot)
    assert ask(served, "support") == (pilot, "pilot")

    run(served, "split", "support", f"{host}=50", f"{pilot}=50", "--who", "bob")
    users = [f"user-{number}" for number in range(12)]
    first = [ask(served, "support", user=user) for user in users]
    assert [ask(served, "support", user=user) for user in users] == first  # a user stays with one version
    assert set(first) == {(host, "host"), (pilot, "pilot")}

    run(served, "rollback", "support")
    assert ask(served, "support") == (pilot, "pilot")
    found = run(served, "show", "support")
    assert [change["kind"] for change in found["history"]] == ["rollback", "split", "flip", "flip"]
    assert found["history"][1]["who"] == "bob from 127.0.0.1"


def test_a_candidate_is_for_the_admin_alone(served: Served) -> None:
    import openai

    version = published(served, "tiger", "--candidate-only", name="next")["version"]
    with pytest.raises(openai.NotFoundError):
        ask(served, version)
    assert ask(served, version, key=token(served)) == (version, "tiger")
    done = command(served.home, "remove", version)
    assert (done.returncode, done.stdout) == (0, f"{version}: removed\n")
    with pytest.raises(openai.NotFoundError):
        ask(served, version, key=token(served))
    assert ask(served, "tiger")[1] == "tiger"  # the same weights under another name stay


def test_what_was_unloaded_comes_back_when_it_is_asked_for(served: Served, versions: dict[str, str]) -> None:
    run(served, "unload", versions["tiger"])
    assert ask(served, "tiger") == (versions["tiger"], "tiger")


def test_vllms_calls_on_the_public_port(served: Served, root: Path) -> None:
    folder = root / "from-a-path"
    shutil.copytree(ADAPTERS_DIR / "host", folder)
    key = {"authorization": f"Bearer {token(served)}"}
    body = {"lora_name": "by-path", "lora_path": str(folder)}
    refused = httpx.post(f"{served.url}/v1/load_lora_adapter", json=body)
    assert refused.status_code in (401, 403)
    outside = {**body, "lora_path": str(ADAPTERS_DIR / "host")}
    assert httpx.post(f"{served.url}/v1/load_lora_adapter", json=outside, headers=key, timeout=30).status_code == 403
    loaded = httpx.post(f"{served.url}/v1/load_lora_adapter", json=body, headers=key, timeout=60)
    assert loaded.status_code == 200, loaded.text
    assert ask(served, "by-path")[1] == "host"
    gone = httpx.post(f"{served.url}/v1/unload_lora_adapter", json={"lora_name": "by-path"}, headers=key, timeout=60)
    assert gone.status_code == 200, gone.text
    assert (
        httpx.post(f"{served.url}/v1/chat/completions", json={"model": "by-path", "messages": QUESTION}).status_code
        == 404
    )


@pytest.mark.parametrize(
    "fault", ["other-base", "nan", "lying-size", "lora-bias", "pickle", "rank-over-sides", "config-no-json"]
)
def test_what_is_broken_is_refused_with_its_message_and_leaves_nothing(
    served: Served, tmp_path: Path, fault: str
) -> None:
    from tests.backends.adapter.faulty import FAULTS, copy_of, packed

    broken = copy_of(ADAPTERS_DIR / "host", tmp_path / fault)
    FAULTS[fault].make(broken)
    store = Store(served.home / "adapters")
    before = store.versions()
    reply = httpx.post(
        f"{served.admin_url}/admin/v1/adapters?name=broken", content=packed(broken), timeout=60,
        headers={"authorization": f"Bearer {token(served)}"},
    )  # fmt: skip
    last = json.loads(reply.text.splitlines()[-1])
    assert (last["event"], last["error"]["code"]) == ("error", "adapter_refused")
    assert FAULTS[fault].rule in {problem["rule"] for problem in last["problems"]}
    assert FAULTS[fault].words in last["error"]["message"]
    assert store.versions() == before
    assert [path.name for path in store.root.glob(".*")] == []
    assert list((served.home / "run" / "publish").glob("*")) == []
    assert "broken" not in {alias["name"] for alias in run(served, "list")["aliases"]}


def test_killed_anywhere_the_alias_serves_the_old_or_the_new_version(tmp_path: Path) -> None:
    """One home; every start dies at a failpoint of a publication, and the next one has to make sense of what is left."""
    home = tmp_path / "home"
    serving, num_versions = None, 0
    for point, adapter, now_serving, num_left in (
        ("publish.stored", "host", None, 0),
        ("publish.proven", "host", None, 1),
        ("alias.moved", "pilot", "pilot", 2),
    ):
        with Served(home, *ANY_PORT, env={"FORGEGATE_FAILPOINT": point}) as gateway:
            check_state(gateway, serving, num_versions)
            done = command(home, "publish", str(ADAPTERS_DIR / adapter), "--name", "support")
            assert done.returncode == 3, done
            assert "Traceback" not in done.stderr
            assert gateway.wait() == -signal.SIGKILL
        serving, num_versions = now_serving, num_left
    with Served(home, *ANY_PORT) as gateway:
        check_state(gateway, serving, num_versions)
        assert published(gateway, "tiger", name="support")["alias"] == "support"
        assert ask(gateway, "support")[1] == "tiger"
        publishing = subprocess.Popen(
            [sys.executable, "-m", "gateway", "adapters", "publish", str(ADAPTERS_DIR / "host"), "--name", "late"],
            cwd=ROOT, env={**os.environ, "FORGEGATE_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(lambda: list((home / "run" / "publish").glob("*.json")))  # its child is at work
        gateway.signal(signal.SIGKILL)
        assert gateway.wait() == -signal.SIGKILL
        assert publishing.wait(20) == 3


def check_state(gateway: Served, serving: str | None, num_versions: int) -> None:
    """After a start: what is known, what serves, and nothing besides."""
    gateway.wait_ready()
    told = run(gateway, "list")
    assert [alias["name"] for alias in told["aliases"]] == (["support"] if serving else [])
    assert {version["digest"] for version in told["versions"]} == set(Store(gateway.home / "adapters").versions())
    assert len(told["versions"]) == num_versions
    assert [path.name for path in (gateway.home / "adapters").glob(".*")] == []
    if serving:
        assert ask(gateway, "support")[1] == serving
