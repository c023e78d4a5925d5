"""`forgegate adapters` as users type it where a gate is in the way; the owner of aliases and its store are real, engines in memory."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from backends.admin_client import AdminClient
from gateway import cli
from gateway.control.adapterapi import AdapterApi
from gateway.control.app import AdminApi, create_app
from gateway.control.gateapi import GateApi
from gateway.control.verdicts import base_of
from gateway.control.watching import Watching
from gateway.exits import BAD_INPUT, DONE
from gateway.home import Home, RunInfo
from gateway.snapshot import Tally
from tests.gateway.control.adapter_rig import BASE, rig
from tests.gateway.control.verdict_documents import document

TOKEN = "the-token"
ON = base_of("demo", BASE)
Run = Callable[..., tuple[int, str, str]]


class Gateway(threading.Thread):
    """The admin API in a thread of its own: commands block. Version `c` has had requests."""

    def __init__(self, home: Path, port: int) -> None:
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{port}"
        self.versions: list[str] = []
        self._home, self._port = home, port
        self._is_up, self._loop, self._end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with rig(self._home, (4,), gate="require") as made:
            self.versions = [await made.add(label) for label in "abc"]
            watching = Watching(made.adapters, lambda text: None)
            watching.tallied([Tally("support", self.versions[0], 200, 3, {20: 197})])
            none: Any = None
            app = create_app(
                AdminApi(none, none, none, none), TOKEN, "0", AdapterApi(made.adapters, none, (), watching.figures), None,
                GateApi(made.adapters, made.adapters._store),
            )  # fmt: skip
            config = uvicorn.Config(
                app, port=self._port, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            self._is_up.set()
            await self._end.wait()
            server.should_exit = True
            await task

    def __enter__(self) -> Gateway:
        self.start()
        assert self._is_up.wait(20)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(20)

    def add_verdict(self, told: dict[str, Any]) -> str:
        with AdminClient(self.url, TOKEN) as client:
            return client.add_verdict(told).removeprefix("sha256:")[:12]


@pytest.fixture
def gateway(forgegate_home: Path, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Gateway]:
    home = Home.from_env()
    home.ensure()
    home.token_file.write_text(TOKEN)
    with Gateway(tmp_path / "gateway", free_port()) as made:
        home.announce(RunInfo(os.getpid(), made.url, made.url))
        yield made
        home.withdraw()


@pytest.fixture
def run(gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, standard output, standard error."""
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["adapters", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_verdict_lets_it_move_and_the_history_names_it(run: Run, gateway: Gateway) -> None:
    a, b, _ = gateway.versions
    assert run("verdicts") == (DONE, "no verdict was given yet: forgegate gate --help\n", "")
    code, _, err = run("alias", "support", a)
    assert (code, f"{a} has no verdict" in err, "--force REASON" in err) == (BAD_INPUT, True, True)
    assert run("alias", "support", a, "--force", "the first")[:2] == (DONE, f"support serves {a}, forced\n")

    no_go = gateway.add_verdict(document(b, a, base=ON, outcome="NO-GO"))
    code, _, err = run("alias", "support", b)
    assert (code, f"verdict sha256:{no_go} says NO-GO (arithmetic is not kept)" in err) == (BAD_INPUT, True)
    go = gateway.add_verdict(document(b, a, base=ON))
    assert run("split", "support", f"{a}=90", f"{b}=10")[:2] == (DONE, f"support serves {a} 90%, {b} 10%, go\n")
    assert run("alias", "support", b, "--verdict", go)[:2] == (DONE, f"support serves {b}, go\n")
    assert run("rollback", "support")[:2] == (DONE, f"support serves {a}, forced\n")

    _, out, _ = run("show", "support")
    rows = [line.split() for line in out[out.index("WHEN") :].splitlines()]
    assert rows[0] == ["WHEN", "WHO", "CHANGE", "SERVES", "GATE", "VERDICT", "REASON"]
    assert [" ".join(row[row.index("127.0.0.1") + 1 :]) for row in rows[1:]] == [
        f"rollback {a} forced - -", f"flip {b} go GO {go} -", f"split {a} 90%, {b} 10% go GO {go} -", f"force {a} forced - the first",
    ]  # fmt: skip
    assert json.loads(run("show", "support", "--json")[1])["history"][1]["outcome"] == "GO"

    code, out, _ = run("verdicts")
    rows = [line.split() for line in out.splitlines()]
    assert [row[:4] for row in rows[1:]] == [[go, "GO", b, a], [no_go, "NO-GO", b, a]]
    assert rows[2][-4:] == ["arithmetic", "is", "not", "kept"]
    assert run("verdicts", a)[1] == f"no verdict of {a} was given yet: forgegate gate --help\n"
    assert len(json.loads(run("verdicts", b, "--json")[1])) == 2


def test_what_speaks_against_a_move_is_a_warning(run: Run, gateway: Gateway) -> None:
    a, b, _ = gateway.versions
    run("alias", "support", a, "--force", "the first")
    gateway.add_verdict(document(b, a, base=ON))
    no_go = gateway.add_verdict(document(b, a, base=ON, outcome="NO-GO"))
    code, out, err = run("alias", "support", b)
    assert (code, out) == (DONE, f"support serves {b}, go\n")
    assert err == f"warning: verdict sha256:{no_go} says NO-GO (arithmetic is not kept)\n"


def test_a_watch_is_set_shown_and_switched_off(run: Run, gateway: Gateway) -> None:
    (a, *_), words = (
        gateway.versions,
        "goes back by itself where errors are above 0.05 or the median time to first byte above 2 times",
    )
    assert run("watch", "support")[0] == BAD_INPUT
    run("alias", "support", a, "--force", "the first")
    code, out, _ = run("watch", "support", "--max-error-share", "0.05", "--max-ttft-ratio", "2", "--window", "60")
    assert (code, out) == (DONE, f"support {words} that of before, from 100 requests in 60 s\n")
    _, out, _ = run("show", "support")
    assert f"watch: {words}" in out
    assert "; set by ann@" in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("LATELY", a))]
    assert rows[-2:] == [["LATELY", "REQUESTS", "ERRORS", "TTFT"], [a, "200", "3", "(1.5%)", "34.9", "ms"]]
    assert json.loads(run("watch", "support", "--json")[1])["watch"]["max_error_share"] == 0.02
    assert run("watch", "support", "--off")[1] == "support is moved by people only\n"
    assert "watch:" not in run("show", "support")[1]
    code, _, err = run("watch", "support", "--max-error-share", "2")
    assert (code, "max_error_share: expected a share from 0 to 1" in err) == (BAD_INPUT, True)


def test_numbers_that_are_none_are_refused_before_anything_is_sent(run: Run) -> None:
    for value in ("nan", "inf", "x"):
        code, _, err = run("watch", "support", "--max-ttft-ratio", value)
        assert (code, f"expected a number, got '{value}'" in err) == (BAD_INPUT, True)
