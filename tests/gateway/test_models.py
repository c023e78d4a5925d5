"""`forgegate models` as users type it, against a hub on this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.artifacts import source_digest
from backends.hub.names import parse_name
from backends.hub.pulled import find_pulled
from backends.hub.store import Store
from gateway import cli
from gateway.exits import BAD_INPUT, DONE, UNABLE
from gateway.home import Home, RunInfo
from tests.hub_server import HubServer, Pause
from tests.processes import ROOT, eventually, interruptible, write_gguf

BODY = b"GGUF" + bytes(3_000_000)
QUANTS = {f"m-{quant}.gguf": BODY + quant.encode() for quant in ("Q4_K_M", "Q5_K_M", "Q8_0")}
HEADER = json.dumps({"a": {"dtype": "U8", "shape": [4900], "data_offsets": [0, 4900]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"\1" * 4900
FOLDER = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add("org/Name-GGUF", QUANTS)
        server.add("org/folder", FOLDER)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def run(forgegate_home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`forgegate models ...` in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["models", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def listed(run: Run) -> list[dict[str, object]]:
    code, out, _ = run("list", "--json")
    assert code == DONE
    on_disk: list[dict[str, object]] = json.loads(out)["on_disk"]
    return on_disk


# pull -----------------------------------------------------------------------------------------------------------------


def test_pull_list_rm(hub: HubServer, run: Run, forgegate_home: Path) -> None:
    code, out, err = run("pull", "org/Name-GGUF:q5_k_m")
    path = next(forgegate_home.rglob("m-Q5_K_M.gguf"))
    assert (code, out) == (DONE, f"org/Name-GGUF:Q5_K_M: 3 MiB in {path}\n")
    assert "pulling org/Name-GGUF:Q5_K_M, as asked for: 1 file, 3 MiB, commit" in err
    assert "m-Q5_K_M.gguf: 3 MiB, checksum right" in err
    assert "serve it: forgegate serve --model org/Name-GGUF:Q5_K_M" in err

    code, out, _ = run("list")
    assert code == DONE
    assert [line.split()[0] for line in out.splitlines()] == ["ON", "org/Name-GGUF:Q5_K_M"]
    assert str(path) in out
    (entry,) = listed(run)
    assert entry["quant"] == "Q5_K_M"
    assert entry["is_whole"] is True
    assert entry["size_bytes"] == entry["present_bytes"] == len(BODY) + 6

    code, out, _ = run("rm", "org/Name-GGUF:Q5_K_M", "--dry-run")
    assert code == DONE
    assert out.startswith("org/Name-GGUF:Q5_K_M  3 MiB")
    assert out.endswith("dry run: nothing was removed\n")
    assert path.exists()
    code, out, _ = run("rm", "org/Name-GGUF", "--yes")
    assert (code, out.splitlines()[-1]) == (DONE, "removed")
    assert listed(run) == []
    assert not path.exists()


def test_pull_again_and_by_options(hub: HubServer, run: Run) -> None:
    commit = hub.add("org/Name-GGUF", {"x-imat-Q4_K_M.gguf": BODY}, branch="v1")
    assert run("pull", "org/Name-GGUF", "--revision", "v1", "--file", "x-imat*")[0] == DONE
    assert run("pull", "org/Name-GGUF")[0] == DONE
    assert [entry["name"] for entry in listed(run)] == ["org/Name-GGUF:Q4_K_M", "org/Name-GGUF:Q4_K_M@v1"]
    assert listed(run)[1]["commit"] == commit
    code, _, err = run("pull", "org/Name-GGUF")
    assert code == DONE
    assert "org/Name-GGUF:Q4_K_M is here already, and nothing newer at the hub" in err


def test_pull_as_json_events(hub: HubServer, run: Run) -> None:
    code, out, err = run("pull", "org/folder", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (DONE, "")
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "pulling", *["downloading", "stored"] * 3, "pulled",
    ]  # fmt: skip
    assert events[0]["total_bytes"] == 4 + len(WEIGHTS)
    assert events[-1]["name"] == "org/folder:safetensors"
    assert Path(events[-1]["path"]).name == "folder"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pull", "gpt2"], BAD_INPUT, "'gpt2' is not a model's name"),
        (["pull", "org/none"], BAD_INPUT, "has no model org/none"),
        (
            ["pull", "org/Name-GGUF:Q3_K_S"],
            BAD_INPUT,
            "no model fits 'Q3_K_S'; it holds:\n  org/Name-GGUF:Q4_K_M  3 MiB",
        ),
        (["pull", "org/folder@v1", "--revision", "v2"], BAD_INPUT, "exclude each other"),
        (["pull", "org/folder", "--revision", "v2"], BAD_INPUT, "no such revision"),
        (["rm", "org/none"], BAD_INPUT, "org/none is not on this disk: nothing is"),
        (["fetch"], BAD_INPUT, "invalid choice"),
    ],
)
def test_mistakes(arguments: list[str], code: int, words: str, hub: HubServer, run: Run) -> None:
    done, _, err = run(*arguments)
    assert (done, words in err) == (code, True), err
    assert "Traceback" not in err


def test_offline(hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = run("pull", "org/folder")
    assert code == UNABLE
    assert "no hub may be asked" in err
    assert hub.seen == []


@pytest.mark.e2e
@pytest.mark.slow
def test_ctrl_c_keeps_what_came(hub: HubServer, run: Run, forgegate_home: Path) -> None:
    hub.pause = Pause(2_000_000)
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "models", "pull", "org/Name-GGUF:Q8_0"], cwd=ROOT, env=os.environ.copy(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        eventually(lambda: [part for part in forgegate_home.rglob("*.part") if part.stat().st_size == 2_000_000], 30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "stopped; what came so far stays: `forgegate models pull org/Name-GGUF:Q8_0` goes on from there" in err
    (entry,) = listed(run)
    assert entry["is_whole"] is False
    assert entry["present_bytes"] == 2_000_000
    assert "unfinished, 2 MiB of 3 MiB are here: `forgegate models pull" in run("list")[1]
    hub.pause = None
    before = hub.sent_bytes
    assert run("pull", "org/Name-GGUF:Q8_0")[0] == DONE
    assert hub.sent_bytes - before == len(BODY) + 4 - 2_000_000


# list -----------------------------------------------------------------------------------------------------------------


def test_nothing_on_disk_and_no_gateway(run: Run) -> None:
    code, out, err = run("list")
    assert (code, err) == (DONE, "")
    assert out == "nothing was pulled yet: forgegate models pull ORG/NAME\n"
    assert json.loads(run("list", "--json")[1]) == {"on_disk": [], "served": None}


def test_a_gateway_that_does_not_answer(run: Run, forgegate_home: Path, free_port: Callable[[], int]) -> None:
    home = Home(forgegate_home)
    home.ensure()
    home.admin_token()
    home.announce(RunInfo(os.getpid(), "http://127.0.0.1:1", f"http://127.0.0.1:{free_port()}"))
    code, _, err = run("list")
    assert code == DONE
    assert "what the running gateway serves is not known: the admin API at" in err
    assert run("list", "--admin-url", f"http://127.0.0.1:{free_port()}")[0] == UNABLE


# rm -------------------------------------------------------------------------------------------------------------------


def test_rm_asks(hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("pull", "org/folder")
    code, _, err = run("rm", "org/folder")
    assert (code, "needs a yes: on a terminal, or by --yes" in err) == (BAD_INPUT, True)
    terminal = io.StringIO("n\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    code, out, _ = run("rm", "org/folder")
    assert (code, out.splitlines()[-1]) == (DONE, "remove this? [y/N] nothing was removed")
    assert len(listed(run)) == 1
    terminal.seek(0)
    terminal.write("y\n")
    terminal.seek(0)
    assert run("rm", "org/folder")[0] == DONE
    assert listed(run) == []


def test_rm_refuses_what_is_served(hub: HubServer, run: Run, forgegate_home: Path) -> None:
    run("pull", "org/folder")
    found = find_pulled(Store(Home(forgegate_home).hub), parse_name("org/folder"))
    assert found is not None
    lease = found[0].lease(found[1])
    assert lease is not None
    code, _, err = run("rm", "org/folder", "--yes")
    assert (code, "org/folder:safetensors is served by a running gateway: stop that first" in err) == (BAD_INPUT, True)
    lease.close()
    assert run("rm", "org/folder", "--yes")[0] == DONE


def test_rm_takes_what_was_derived(hub: HubServer, run: Run, forgegate_home: Path) -> None:
    run("pull", "org/folder")
    run("pull", "org/Name-GGUF")
    models = forgegate_home / "models"
    digest = source_digest(next(models.rglob("model.safetensors")).parent, models)
    mark, other = digest.removeprefix("sha256:")[:12], "0123456789ab"
    for name, source in {
        f"folder-{mark}.gguf": digest,
        f"folder-{mark}-f16.gguf": digest,
        f"folder-{other}.gguf": f"sha256:{other}",  # of another model in a folder of this name
        f"folder-{other}-f16.gguf": "",
        f"folder-{mark}-by-others.gguf": "",
        "mine.gguf": digest,
    }.items():
        write_gguf(models / name, source)
    (models / f"folder-{mark}-x.gguf").write_bytes(b"damaged")
    _, out, _ = run("rm", "org/folder:safetensors", "--yes")
    assert f"folder-{mark}-f16.gguf  1 MiB  derived from it" in out
    left = {
        f"folder-{other}-f16.gguf",
        f"folder-{other}.gguf",
        f"folder-{mark}-x.gguf",
        f"folder-{mark}-by-others.gguf",
    }
    assert {path.name for path in models.glob("*.gguf")} == {*left, "mine.gguf"}
    assert [entry["name"] for entry in listed(run)] == ["org/Name-GGUF:Q4_K_M"]
    code, _, err = run("rm", "org/folder")
    assert (code, "is not on this disk; there are: org/Name-GGUF:Q4_K_M" in err) == (BAD_INPUT, True)


def test_rm_leaves_what_was_made_of_a_model_never_used(hub: HubServer, run: Run, forgegate_home: Path) -> None:
    run("pull", "org/folder")
    kept = write_gguf(forgegate_home / "models" / "folder-0123456789ab.gguf", "sha256:0123456789ab")
    _, out, _ = run("rm", "org/folder", "--yes")
    assert "derived" not in out
    assert kept.exists()


def test_rm_takes_a_model_that_was_pulled_by_branch_and_by_commit(hub: HubServer, run: Run) -> None:
    commit = hub.add("org/folder", FOLDER)
    run("pull", "org/folder")
    run("pull", f"org/folder@{commit}")
    assert len(listed(run)) == 2
    code, out, err = run("rm", "ORG/folder", "--yes")
    assert (code, err, len(out.splitlines())) == (DONE, "", 3)
    assert listed(run) == []


def test_rm_takes_what_is_unfinished(hub: HubServer, run: Run, forgegate_home: Path) -> None:
    hub.linked_etag = "f" * 64
    code, _, err = run("pull", "org/folder")
    assert (code, "pull again later" in err) == (UNABLE, True)
    (entry,) = listed(run)
    assert entry["is_whole"] is False
    assert run("rm", "org/folder", "--yes")[0] == DONE
    assert listed(run) == []
