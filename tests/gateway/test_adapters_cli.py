"""`forgegate adapters` as users type it, against the admin API over a socket; engines are in memory, the ingest child is real."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import cli
from gateway.exits import BAD_INPUT, DONE, NEGATIVE, UNABLE
from gateway.home import Home, RunInfo
from gateway.publishview import Bar, Events, Lines, make_view, words
from tests.gateway.control.fake_adapters import FakeAdapters
from tests.gateway.control.publishing import HOST, rig
from tests.gateway.control.test_adapterapi import TOKEN, served

Run = Callable[..., tuple[int, str, str]]
PILOT = HOST.parent / "pilot"


class Gateway(threading.Thread):
    """The admin API in a thread of its own: commands block."""

    def __init__(self, root: Path, port: int, core: FakeAdapters) -> None:
        super().__init__(daemon=True)
        self.core = core
        self.url = ""
        self._root, self._port = root, port
        self._is_up, self._loop, self._end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with rig(self._root, self.core) as parts, served(parts, self._port) as url:
            self.url = url
            self._is_up.set()
            await self._end.wait()

    def __enter__(self) -> Gateway:
        self.start()
        assert self._is_up.wait(20)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(20)


@pytest.fixture
def core() -> FakeAdapters:
    return FakeAdapters()


@pytest.fixture
def run(
    forgegate_home: Path, tmp_path: Path, core: FakeAdapters, free_port: Callable[[], int],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:  # fmt: skip
    """`forgegate adapters ...` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")
    home = Home.from_env()
    home.ensure()
    home.token_file.write_text(TOKEN)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["adapters", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    with Gateway(tmp_path / "gateway", free_port(), core) as gateway:
        home.announce(RunInfo(os.getpid(), gateway.url, gateway.url))
        yield call
        home.withdraw()


def version_of(out: str) -> str:
    return out.split(":")[0]


def test_publish_flip_split_rollback_and_what_is_told_of_it(run: Run) -> None:
    code, out, _ = run("list")
    assert (code, out) == (DONE, "no adapter was published yet: forgegate adapters publish DIR --name NAME\n")

    code, out, err = run("publish", str(HOST), "--name", "support")
    v1 = version_of(out)
    assert (code, out) == (DONE, f"{v1}: live, proven\nsupport serves it\n")
    assert "upload: " in err
    assert "  lint: checking it against the rules and the base" in err
    assert "seconds: upload " in err
    code, out, err = run("publish", str(PILOT), "--name", "support", "--candidate-only", "--model", "demo")
    v2 = version_of(out)
    assert (code, out) == (DONE, f"{v2}: candidate, proven\n")
    assert f"serve it: forgegate adapters alias support {v2}" in err
    assert run("publish", str(HOST), "--name", "support")[1].startswith(f"{v1}: live, proven (already there)")

    assert run("alias", "support", v2)[:2] == (DONE, f"support serves {v2}, ungated\n")
    code, out, _ = run("split", "support", f"{v1}=90", f"{v2}=10", "--who", "bob")
    assert (code, out) == (DONE, f"support serves {v1} 90%, {v2} 10%, ungated\n")
    assert run("rollback", "support")[:2] == (DONE, f"support serves {v2}, ungated\n")

    code, out, _ = run("show", "support")
    assert out.startswith(f"support: an alias of model demo, serves {v2}, ungated\n")
    table = out[out.index("WHEN") :].splitlines()
    kinds = [line.partition(" from 127.0.0.1")[2].split()[0] for line in table[1:]]
    assert kinds == ["rollback", "split", "flip", "flip", "flip"]
    assert "bob from 127.0.0.1" in " ".join(table[2].split())
    assert "demo-0  yes     proven" in out
    code, out, _ = run("show", v1)
    assert "rank 8, 2 MiB" in out
    assert out.endswith("served by no alias\n")

    assert run("pin", v1)[:2] == (DONE, f"{v1}: pinned\n")
    code, out, _ = run("list")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "live, pinned  proven  demo-0" in rows[v1]
    assert rows["support"].split() == ["support", "demo", v2, "ungated"]
    assert run("unpin", v1)[:2] == (DONE, f"{v1}: not pinned any more\n")
    assert run("unload", v1)[:2] == (DONE, f"{v1}: unloaded\n")
    assert run("remove", v1)[:2] == (DONE, f"{v1}: removed\n")
    code, _, err = run("remove", v2)
    assert (code, "is served by an alias" in err) == (BAD_INPUT, True)


def test_json_is_for_programs(run: Run) -> None:
    code, out, err = run("publish", str(HOST), "--name", "support", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (DONE, "")
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    last = events[-1]
    assert (last["event"], last["alias"], last["proof"]) == ("published", "support", "proven")
    assert last["total_s"] == pytest.approx(sum(last["seconds"].values()), abs=1e-3)
    assert json.loads(run("alias", "support", last["version"], "--json")[1])["kind"] == "flip"
    told = json.loads(run("list", "--json")[1])
    assert (told["versions"][0]["name"], told["aliases"][0]["name"]) == (last["version"], "support")
    assert json.loads(run("show", "support", "--json")[1])["kind"] == "alias"
    assert json.loads(run("pin", last["version"], "--json")[1]) == {"name": last["version"]}


def test_mistakes_are_one_message(run: Run, tmp_path: Path) -> None:
    version = version_of(run("publish", str(HOST), "--name", "support")[1])
    for arguments, words_ in (
        (("show", "suport"), f"did you mean 'support'? there are: support, {version}"),
        (("rollback", "suport"), "no alias 'suport'; did you mean 'support'?"),
        (("rollback", "support"), "has served nothing else"),
        (("publish", str(tmp_path), "--name", "support"), "is no adapter: it has no adapter_config.json"),
        (("publish", str(tmp_path / "x"), "--name", "support"), "no such folder"),
        (("publish", str(HOST), "--name", "support", "--model", "demi"), "did you mean 'demo'?"),
        (("publish", str(HOST), "--name", "demo"), "is the name of a model"),
        (("split", "support", version), "expected VERSION=WEIGHT"),
        (("split", "support", f"{version}=1", f"{version}=2"), "named twice"),
        (("publsh",), "invalid choice: 'publsh'"),
        (("publish", str(HOST)), "--name"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (BAD_INPUT, ""), arguments
        assert words_ in err, arguments
        assert "Traceback" not in err


def test_no_gateway_is_needed_to_see_that_it_is_no_adapter(
    forgegate_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["adapters", "publish", str(tmp_path), "--name", "a"]) == BAD_INPUT
    assert "is no adapter" in capsys.readouterr().err
    assert cli.main(["adapters", "publish", str(HOST), "--name", "a"]) == UNABLE
    assert "no forgegate is running" in capsys.readouterr().err


def test_a_refused_adapter_shows_rule_and_fix(run: Run, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    code, out, err = run("publish", str(tmp_path), "--name", "support")
    assert (code, out) == (BAD_INPUT, "")
    assert "error: the adapter is refused:\n" in err
    assert "    fix: " in err


class TestFailedProof:
    @pytest.fixture
    def core(self) -> FakeAdapters:
        return FakeAdapters("failed")

    def test_it_is_a_negative_verdict(self, run: Run) -> None:
        code, out, err = run("publish", str(HOST), "--name", "support")
        assert (code, out) == (NEGATIVE, "")
        assert "stays a candidate: demo-0: it changes nothing" in err


@pytest.mark.parametrize(
    "action", ["list", "show", "publish", "alias", "split", "rollback", "pin", "unpin", "unload", "remove"]
)
def test_every_action_has_help_with_an_example(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adapters", action, "--help"]) == DONE
    assert f"  forgegate adapters {action}" in capsys.readouterr().out


# What is shown --------------------------------------------------------------------------------------------------------

MIB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_show_each_stage_and_long_ones_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    with Lines(out, clock) as view:
        for second in range(13):
            clock.now += 1
            view.sent(second * MIB, 12 * MIB)
        for done in range(7):
            clock.now += 1
            view.told({"event": "progress", "stage": "reference", "text": "layer", "done": done, "total": 7})
    assert out.getvalue().splitlines() == [
        "  upload: 4 MiB of 12 MiB",
        "  upload: 9 MiB of 12 MiB",
        "  upload: 12 MiB sent",
        "  reference: layer (0 of 7)",
        "  reference: layer (5 of 7)",
    ]


def test_events_of_the_upload_come_once_a_second() -> None:
    clock, out = Clock(), io.StringIO()
    with Events(out, clock) as view:
        for half in range(5):
            clock.now += 0.5
            view.sent(half, 4)
    assert [json.loads(line)["done"] for line in out.getvalue().splitlines()] == [1, 3, 4]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with make_view(False, err=terminal) as view:
        assert isinstance(view, Bar)
        view.sent(1, 2)
        view.told({"stage": "lint", "text": "checking"})
    assert isinstance(make_view(False, err=io.StringIO()), Lines)
    assert isinstance(make_view(True), Events)
    assert words({"stage": "queue"}) == "queue"
