import hashlib
import json
import sys
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
    assert "--n-ctx 400 --n-ctx-seq 100 --n-seq-max 4 --n-threads 3 --n-threads-batch 3" in engine
    gateway = peer_launch.peer("forgegate", setup)
    config = json.loads((setup.workdir / "forgegate.yaml").read_text("utf-8"))
    assert config["models"][0]["pools"][0]["options"]["n_ctx"] == 400
    assert config["server"]["port"] == gateway.port
    for each in (engine, config["models"][0]["pools"][0]["model"]):
        assert str(setup.model) in each


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


@pytest.mark.slow
def test_a_comparison_of_two_mocks(setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Whole way with real children: interleaved, ratios by repeat, JSON and table written, invalid where one fails."""

    def mock(name: str, *flags: str) -> Peer:
        port = peer_launch.free_port()
        argv = (sys.executable, "-m", "benchmarks.cli", "mock", "--port", str(port), "--models", "tiny", *flags)
        return Peer(name, port, Launch(argv, "/health"), "1")

    monkeypatch.setitem(PEERS, "slow", lambda _: mock("slow", "--ttft-ms", "12", "--itl-ms", "12"))
    monkeypatch.setitem(PEERS, "fast", lambda _: mock("fast", "--ttft-ms", "3", "--itl-ms", "3"))
    monkeypatch.setitem(
        PEERS, "broken", lambda _: mock("broken", "--ttft-ms", "1", "--itl-ms", "1", "--error-rate", "0.5")
    )
    monkeypatch.setattr(peers, "cpu_busy", lambda: 0.01)
    out = setup.workdir / "result.json"
    base = [
        "--model",
        str(setup.model),
        "--concurrency",
        "1,4",
        "--output-tokens",
        "8",
        "--requests",
        "4",
        "--repeats",
        "2",
        "--out",
        str(out),
    ]
    assert peers.main([*base, "--peers", "slow,fast", "--warmup", "4"]) == 0
    result = json.loads(out.read_text("utf-8"))
    assert (result["kind"], result["format_version"], result["baseline"]) == ("peers", 1, "slow")
    assert result["model"]["sha256"] == hashlib.sha256(b"GGUF").hexdigest()
    orders = {
        (run["order"], peer["name"], level["concurrency"])
        for peer in result["peers"]
        for level in peer["levels"]
        for run in level["runs"]
    }
    turns = [(1, "slow"), (1, "fast"), (4, "slow"), (4, "fast")]
    assert sorted(orders) == [(i, name, level) for i, (level, name) in enumerate([*turns, *reversed(turns)])]
    fast = result["peers"][1]["levels"]
    assert all(1.5 < level["ratio"]["median"] < 4.5 for level in fast)
    table = out.with_suffix(".md").read_text("utf-8")
    assert "| 4 | fast |" in table
    assert str(setup.workdir) not in table + out.read_text("utf-8")
    monkeypatch.setattr(peers, "cpu_busy", lambda: 0.6)
    assert peers.main([*base, "--peers", "broken", "--warmup", "8"]) == 1
    shown = capsys.readouterr().out
    assert "**INVALID**" in shown
    assert "INVALID: the machine was 60% busy" in shown


def test_secrets_and_places_do_not_reach_results():
    assert shown_command(["run", "--api-key", "k", "--api-key=k", "/home/me/x"]) == [
        "run",
        "--api-key",
        "***",
        "--api-key=***",
        "x",
    ]
