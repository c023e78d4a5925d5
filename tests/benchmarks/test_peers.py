import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peer_launch, peers
from benchmarks.child import Child, ChildError, Launch
from benchmarks.client import Client, Target
from benchmarks.environment import shown_command
from benchmarks.peer_launch import PEERS, Peer, PeerError, Setup


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    return Setup(model, threads=3, num_slots=4, n_ctx_seq=100, workdir=tmp_path, packaged_python=Path(sys.executable))


def test_all_peers_get_the_same_model_threads_and_room(setup: Setup):
    engine = " ".join(peer_launch.peer("forgegate-engine", setup).launch.argv)
    assert "--n-ctx 400 --n-ctx-seq 100 --n-seq-max 4" in engine
    assert "--n-threads 3 --n-threads-batch 3" in engine
    gateway = peer_launch.peer("forgegate", setup)
    config = json.loads((setup.workdir / "forgegate.yaml").read_text("utf-8"))
    assert config["models"][0]["pools"][0]["options"]["n_ctx"] == 400
    assert config["server"]["port"] == gateway.port
    for each in (engine, config["models"][0]["pools"][0]["model"]):
        assert str(setup.model) in each


def test_llama_server_gets_the_same_room_steps_and_work(setup: Setup):
    setup = replace(setup, llama_server=llama_server_of(setup.workdir))
    peer = peer_launch.peer("llama-server", setup)
    argv = " ".join(peer.launch.argv)
    assert f"-m {setup.model} -a tiny" in argv
    assert "-c 400 -np 4 -t 3 -tb 3 -b 512 -ub 512 --no-cache-prompt --cache-ram 0" in argv
    assert peer.version == "0.5.0"
    engine = " ".join(peer_launch.peer("forgegate-engine", setup).launch.argv)
    assert "--n-batch 512 --n-ubatch 512" in engine
    assert "--prefix-cache false" in engine
    reusing = " ".join(peer_launch.peer("llama-server", replace(setup, prefix_cache=True)).launch.argv)
    assert "cache" not in reusing


def test_llama_server_draws_as_our_engine_does(setup: Setup):
    setup = replace(setup, llama_server=llama_server_of(setup.workdir))
    assert peer_launch.peer("llama-server", setup).body["top_k"] == 1
    drawn = peer_launch.peer("llama-server", replace(setup, temperature=0.7)).body
    assert drawn == {"top_k": 0, "top_p": 1, "min_p": 0}


def llama_server_of(folder: Path) -> Path:
    """Something that tells a version."""
    path = folder / "llama-server"
    path.write_text("#!/bin/sh\necho 'version: 0.5.0' >&2\n", "utf-8")
    path.chmod(0o755)
    return path


def test_a_peer_that_is_not_there_says_what_it_needs(setup: Setup):
    with pytest.raises(PeerError, match="--llama-server"):
        peer_launch.peer("llama-server", setup)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--model", "nowhere.gguf"], "no model file"),
        (["--model", __file__, "--peers", "forgegate,lama-server"], "no peer 'lama-server'"),
        (["--model", __file__, "--baseline", "llama-server"], "not among the peers"),
        (["--model", __file__, "--server-cpus", "a"], "not a whole number"),
        (["--model", __file__, "--constrained"], "llama-cpp-python's server takes no response_format"),
        (["--model", __file__, "--constrained", "--json-schema", "x"], "not allowed with"),
        (["--model", __file__, "--peers", "forgegate", "--json-schema", "nowhere.json"], "cannot read a JSON schema"),
        (
            ["--model", __file__, "--peers", "forgegate", "--constrained", "--endpoint", "completions"],
            "the chat endpoint",
        ),
    ],
)
def test_usage_errors(argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    python = ["--packaged-python", sys.executable]
    assert peers.main([*argv, *python, "--out", str(tmp_path / "x.json")]) == 2
    assert says in capsys.readouterr().err


async def test_a_child_that_ends_shows_its_last_words(tmp_path: Path):
    argv = (sys.executable, "-c", "print('error: no such model'); raise SystemExit(3)")
    child = Child(Launch(argv, "/health"), tmp_path / "log")
    with pytest.raises(ChildError, match="exit code 3\nerror: no such model"):
        await child.wait_ready(Client(Target.from_url("http://127.0.0.1:9")), 10)
    child.stop()


@pytest.fixture
def mock_peer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds a peer that is a mock, started as every peer is."""

    def add(name: str, *flags: str, body: dict[str, object] | None = None, note: str = "") -> None:
        def start(_: Setup) -> Peer:
            port = peer_launch.free_port()
            argv = (sys.executable, "-m", "benchmarks.cli", "mock", "--port", str(port), "--models", "tiny", *flags)
            return Peer(name, port, Launch(argv, "/health"), "1", body or {}, note)

        monkeypatch.setitem(PEERS, name, start)

    monkeypatch.setattr(peers, "cpu_busy", lambda: 0.01)
    return add


def words(setup: Setup, *more: str) -> list[str]:
    """A small comparison's command line."""
    size = ("--output-tokens", "8", "--requests", "4", "--repeats", "2")
    return ["--model", str(setup.model), "--out", str(setup.workdir / "result.json"), *size, *more]


@pytest.mark.slow
def test_a_comparison_of_two_mocks(setup: Setup, mock_peer: Callable[..., None]):
    """Whole way with real children: interleaved, ratios by repeat, JSON and table written."""
    mock_peer("slow", "--ttft-ms", "12", "--itl-ms", "12")
    mock_peer("fast", "--ttft-ms", "3", "--itl-ms", "3", note="pays no attention")
    assert peers.main(words(setup, "--concurrency", "1,4", "--peers", "slow,fast", "--warmup", "4")) == 0
    out = setup.workdir / "result.json"
    result = json.loads(out.read_text("utf-8"))
    assert (result["kind"], result["format_version"], result["baseline"]) == ("peers", 1, "slow")
    assert result["model"]["sha256"] == hashlib.sha256(b"GGUF").hexdigest()
    runs = [
        (run, peer["name"], level["concurrency"])
        for peer in result["peers"]
        for level in peer["levels"]
        for run in level["runs"]
    ]
    turns = [(1, "slow"), (1, "fast"), (4, "slow"), (4, "fast")]
    orders = sorted((run["order"], name, level) for run, name, level in runs)
    assert orders == [(i, name, level) for i, (level, name) in enumerate([*turns, *reversed(turns)])]
    assert all(run["num_connects"] == level for run, _, level in runs), "every run opens its own connections"
    fast = result["peers"][1]["levels"]
    assert all(1.5 < level["ratio"]["median"] < 4.5 for level in fast)
    table = out.with_suffix(".md").read_text("utf-8")
    assert "| 4 | fast |" in table
    assert "\nfast: pays no attention.\n" in table
    assert str(setup.workdir) not in table + out.read_text("utf-8")


@pytest.mark.slow
def test_figures_that_must_not_be_used(
    setup: Setup,
    mock_peer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A busy machine, failing requests, less work than the baseline did, answers that break the schema."""
    mock_peer("broken", "--error-rate", "0.5")
    mock_peer("lazy", body={"max_tokens": 5, "ignore_eos": False})
    monkeypatch.setattr(peers, "cpu_busy", lambda: 0.6)
    flags = ("--concurrency", "4", "--warmup", "8", "--constrained")
    assert peers.main(words(setup, *flags, "--peers", "broken,lazy")) == 1
    shown = capsys.readouterr().out
    assert "**INVALID**" in shown
    assert "INVALID: the machine was 60% busy" in shown
    assert "INVALID: lazy, 4 streams, repeat 0: 20 output tokens, broken had" in shown
    assert "INVALID: lazy, 4 streams, repeat 1: answer 0 does not follow the schema" in shown
    assert "8 output tokens that follow a JSON schema" in shown


def test_secrets_and_places_do_not_reach_results():
    assert shown_command(["run", "--api-key", "k", "--api-key=k", "/home/me/x"]) == [
        "run",
        "--api-key",
        "***",
        "--api-key=***",
        "x",
    ]
