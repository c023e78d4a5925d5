"""`forgegate serve` of models that are named as a hub does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import cli
from gateway.exits import BAD_INPUT, DONE, UNABLE
from tests.hub_server import HubServer, Pause
from tests.processes import ROOT, Served, eventually, interruptible, stub_python, write_gguf

DEMO = ROOT / "backends" / "demo" / "weights" / "target"

Serve = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        gguf = write_gguf(tmp_path / "m.gguf").read_bytes()
        server.add("org/Some-GGUF", {"some-Q4_K_M.gguf": gguf, "some-Q8_0.gguf": gguf + bytes(100)})
        server.add("demo-org/demo", {path.name: path.read_bytes() for path in DEMO.iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two pools of stub engines: two quantisations of one model."""
    python = stub_python(tmp_path)
    pools = "\n".join(
        f"      - {{engine: llamacpp, model: org/Some-GGUF:{quant}, python: {python}}}" for quant in ("Q4_K_M", "Q8_0")
    )
    path = tmp_path / "forgegate.yaml"
    path.write_text(f"server: {{port: 0, admin: {{port: 0}}}}\nmodels:\n  - name: some\n    pools:\n{pools}\n")
    return path


@pytest.fixture
def serve(forgegate_home: Path, capsys: pytest.CaptureFixture[str]) -> Serve:
    """`forgegate serve ...` that does not go as far as serving: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["serve", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_check_says_what_would_be_pulled_and_pulls_nothing(
    hub: HubServer, serve: Serve, config: Path, forgegate_home: Path
) -> None:
    code, out, _ = serve("--config", str(config), "--check")
    assert code == DONE
    assert f"org/Some-GGUF:Q4_K_M would be pulled from {hub.url}: Q4_K_M, 1 file, 1 MiB\n" in out
    assert f"org/Some-GGUF:Q8_0 would be pulled from {hub.url}: Q8_0, 1 file, 1 MiB\n" in out
    assert hub.sent_bytes == 0
    assert not forgegate_home.exists()


def test_check_without_a_hub(
    serve: Serve, config: Path, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    code, out, _ = serve("--config", str(config), "--check")
    assert code == DONE
    assert "org/Some-GGUF:Q4_K_M would be pulled" in out
    assert "how large it is cannot be told now: 127.0.0.1" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--model", "org/none"],
            BAD_INPUT,
            "org/none: no such file or folder here, and not to be had from a hub: http",
        ),
        (["--model", "org/none", "--check"], BAD_INPUT, "has no model org/none"),
        (["--model", "org/Some-GGUF:Q2_K"], BAD_INPUT, "it holds:\n  org/Some-GGUF:Q4_K_M"),
        (["--model", "org/Some-GGUF", "--offline"], UNABLE, "no hub may be asked: --offline or HF_HUB_OFFLINE is set"),
        (["--model", "org/Some-GGUF", "--offline", "--check"], UNABLE, "no hub may be asked"),
        (["--model", "org/Some-GGUF", "--plan"], UNABLE, "`forgegate models pull org/Some-GGUF` first"),
        (
            ["--model", "org/awq"],
            BAD_INPUT,
            "org/awq: these are AWQ weights, which llama.cpp cannot read: vLLM serves them",
        ),
        (["--model", "org/awq", "--check"], BAD_INPUT, "these are AWQ weights"),
        (["--model", "models/none.gguf"], BAD_INPUT, "models/none.gguf: no such file or folder"),
    ],
)
def test_what_cannot_be_had(arguments: list[str], code: int, words: str, hub: HubServer, serve: Serve) -> None:
    config = json.dumps(
        {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq"}}
    ).encode()
    hub.add("org/awq", {"config.json": config, "model.safetensors": bytes(50_000)})
    done, _, err = serve(*arguments, "--port", "0", "--admin-port", "0")
    assert (done, words in err) == (code, True), err
    assert hub.sent_bytes < 1000


@pytest.mark.engine
@pytest.mark.slow
def test_the_demo_model_pulled_from_a_hub_can_be_served(
    hub: HubServer, serve: Serve, forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "pull", "demo-org/demo"]) == DONE
    capsys.readouterr()
    hub.seen.clear()
    code, out, err = serve("--model", "demo-org/demo", "--check", "--offline")
    assert (code, err) == (DONE, "")
    assert "demo: 1 x llama.cpp engine, model" in out
    assert f"{forgegate_home}/models/hub/demo-org/demo/safetensors/" in out
    assert "(LlamaForCausalLM, safetensors, converted to GGUF at first use)" in out
    assert "check passed: nothing was started" in out
    assert serve("--model", "demo-org/demo:safetensors", "--plan")[0] == DONE
    assert hub.seen == []


@pytest.mark.e2e
@pytest.mark.slow
def test_serving_pulls_once_and_holds_what_it_serves(hub: HubServer, config: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Served(home, "--config", str(config)) as served:
        assert served.wait_for("pulled")["name"] == "org/Some-GGUF:Q4_K_M"
        assert served.wait_for("pulled")["name"] == "org/Some-GGUF:Q8_0"
        assert served.wait_ready()["models"] == {"some": ["2 x llama.cpp on stub"]}
        listed = json.loads(_forgegate(home, "models", "list", "--json").stdout)
        assert [entry["name"] for entry in listed["on_disk"]] == ["org/Some-GGUF:Q4_K_M", "org/Some-GGUF:Q8_0"]
        assert [model["name"] for model in listed["served"]] == ["some"]
        table = _forgegate(home, "models", "list").stdout
        assert "2/2" in table
        refused = _forgegate(home, "models", "rm", "org/Some-GGUF", "--yes")
        assert (refused.returncode, "is served by a running gateway" in refused.stderr) == (BAD_INPUT, True)
    hub.seen.clear()
    path = json.loads(_forgegate(home, "models", "list", "--json").stdout)["on_disk"][0]["path"]
    by_path = config.with_name("by-path.yaml")
    by_path.write_text(config.read_text().replace("org/Some-GGUF:Q4_K_M", path))
    with Served(home, "--config", str(by_path), "--offline") as served:
        note = served.wait_for("note")["detail"]
        assert note.startswith("org/Some-GGUF:Q8_0: org/Some-GGUF:Q8_0 is on this disk (commit ")
        assert note.endswith("no hub is asked")
        served.wait_ready()
        assert _forgegate(home, "models", "rm", "org/Some-GGUF:Q4_K_M", "--yes").returncode == BAD_INPUT
    assert hub.seen == []
    assert _forgegate(home, "models", "rm", "org/Some-GGUF", "--yes").returncode == DONE


@pytest.mark.e2e
@pytest.mark.slow
def test_ctrl_c_while_serve_pulls(hub: HubServer, tmp_path: Path) -> None:
    hub.pause = Pause(100)
    home = tmp_path / "home"
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--model", "org/Some-GGUF"], cwd=ROOT,
            env={**os.environ, "FORGEGATE_HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        eventually(lambda: [part for part in home.rglob("*.part") if part.stat().st_size == 100], timeout_s=30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "`forgegate models pull org/Some-GGUF` goes on from there" in err


def _forgegate(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FORGEGATE_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
