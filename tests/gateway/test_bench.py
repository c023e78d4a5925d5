"""`forgegate bench start | list | show | stop` as users type it, against the admin API over a socket; the measuring child is the real
one, and asks a mock.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from backends.errors import AdminError
from backends.process import Launcher
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from gateway import benchruns, cli, errors
from gateway.bench import RUNS
from gateway.control.adapterapi import AdapterApi
from gateway.control.app import AdminApi, create_app
from gateway.control.benchmarkapi import BenchmarkApi
from gateway.control.benchmarks import Benchmarks, Means, Target
from gateway.control.benchmarkshelf import Shelf
from gateway.exits import BAD_INPUT, DONE, NEGATIVE, UNABLE, CommandError
from gateway.home import Home, RunInfo
from tests.benchmarks.conftest import serving

Run = Callable[..., tuple[int, str, str]]
TOKEN = "the-token"
SHORT = ("--model", "mock", "--concurrency", "1,2", "--requests", "8", "--output-tokens", "5", "--no-ceiling")
LONG = ("--model", "mock", "--concurrency", "1", "--output-tokens", "100000", "--no-ceiling", "--no-wait")


class Gateway(threading.Thread):
    """The admin API in a thread of its own: commands block."""

    def __init__(self, folder: Path, port: int, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._port, self._endpoint = folder, port, endpoint
        self._is_up, self._loop, self._end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        launcher = await Launcher.start()
        means = Means(launcher, _nobody, self._endpoint, "key", _find, lambda _: None, _changed)
        benchmarks = Benchmarks(Shelf(self._folder), means)
        await benchmarks.open()
        nothing: Any = None  # the other routes are not called
        engines, adapters = AdminApi(nothing, nothing, nothing, nothing), AdapterApi(nothing, nothing, ())
        app = create_app(engines, TOKEN, "0", adapters, benchmarks=BenchmarkApi(benchmarks))
        server = uvicorn.Server(
            uvicorn.Config(app, port=self._port, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
        )
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        self._is_up.set()
        await self._end.wait()
        server.should_exit = True
        await task
        await benchmarks.close()
        await launcher.close()

    def __enter__(self) -> Gateway:
        self.start()
        assert self._is_up.wait(20)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(20)


async def _nobody(_: str) -> None:
    return None


async def _changed() -> None: ...


def _find(name: str) -> Target:
    if name != "mock":
        raise errors.ModelNotFound(f"model: {name!r} is not served here; there are: mock", param="model")
    return Target("mock", "mock@1", ("chat",))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving(MockEngine(Behaviour(ttft_ms=5, itl_ms=2))) as url:
        yield url


@pytest.fixture
def run(
    endpoint: str, forgegate_home: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:  # fmt: skip
    """`forgegate bench ...` in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(benchruns, "POLL_S", 0.02)
    home = Home.from_env()
    home.ensure()
    home.token_file.write_text(TOKEN)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["bench", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    with Gateway(home.benchmarks, free_port(), endpoint) as gateway:
        home.announce(RunInfo(os.getpid(), gateway.url, gateway.url))
        yield call
        home.withdraw()


@pytest.mark.slow
def test_a_run_is_followed_to_its_end_and_found_again(run: Run, forgegate_home: Path, tmp_path: Path) -> None:
    assert run("list")[:2] == (DONE, "nothing was measured yet: forgegate bench start --model NAME\n")
    assert run("show")[0] == BAD_INPUT

    code, out, err = run("start", *SHORT, "--who", "ann")
    assert code == DONE, err
    first, *_, report = out.splitlines()
    run_id = first.split()[1]
    assert first.startswith(f"benchmark {run_id} of mock (mock@1), ")
    assert first.endswith(", by ann from 127.0.0.1")
    assert f"benchmark {run_id} of mock has begun\n" in err
    assert "running" in err
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["1 stream"][2] == rows["2 streams"][2] == "24/24", "three repeats of eight"
    page = forgegate_home / "benchmarks" / run_id / "report.html"
    assert report == f"report: {page}"
    assert page.read_bytes().startswith(b"<!doctype html>")

    code, listed, _ = run("list")
    assert [line.split()[0] for line in listed.splitlines()[:2]] == ["BENCHMARK", run_id]
    assert " tok/s at " in listed.splitlines()[1]
    assert listed.splitlines()[-1].startswith(f"reports: {forgegate_home}/benchmarks/ID/report.html")
    assert run("show")[:2] == run("show", run_id)[:2] == (DONE, out)
    for form, start in (("html", b"<!doctype html>"), ("json", b'{\n  "format": "forgegate.benchmark"')):
        fetched = tmp_path / f"fetched.{form}"
        assert run("show", run_id, "--out", str(fetched))[0] == DONE
        assert fetched.read_bytes().startswith(start)
    (told,) = json.loads(run("list", "--json")[1])
    assert told == json.loads(run("show", "--json")[1])
    assert (told["id"], told["asked"]["repeats"], told["num_done"]) == (run_id, 3, 6)


@pytest.mark.slow
def test_a_promise_that_does_not_hold_is_a_negative_verdict(run: Run) -> None:
    code, out, err = run("start", *SHORT, "--repeats", "1", "--slo", "ttft_p50<1us", "--json")
    assert code == NEGATIVE, err
    assert json.loads(out)["is_slo_met"] is False
    assert "ttft_p50<1us is shown to hold at no load" in run("show")[1]


@pytest.mark.slow
def test_one_at_a_time_and_stopped_by_its_name(run: Run) -> None:
    code, out, err = run("start", *LONG)
    run_id = out.strip()
    assert (code, run_id in err) == (DONE, True)
    code, out, err = run("start", *SHORT)
    assert (code, out) == (BAD_INPUT, "")
    assert f"benchmark {run_id} is on" in err
    assert " running: " in run("list")[1]
    code, out, _ = run("stop", run_id)
    assert (code, out) == (DONE, f"{run_id}: stopped: by 127.0.0.1\n")
    assert run("stop", run_id)[:2] == (DONE, out), "it stays as it is"
    code, out, _ = run("show", run_id)
    assert (code, "stopped: by 127.0.0.1" in out, "report:" in out) == (DONE, True, False)
    code, _, err = run("show", run_id, "--out", "never-written.html")
    assert (code, "has no result: stopped" in err) == (BAD_INPUT, True)
    assert not Path("never-written.html").exists()


@pytest.mark.slow
def test_whoever_stops_waiting_does_not_stop_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(benchruns, "_followed", interrupted)
        code, _, err = run("start", *(word for word in LONG if word != "--no-wait"))
    (told,) = json.loads(run("list", "--json")[1])
    assert (code, told["state"]) == (cli.INTERRUPTED, "running")
    assert f"it goes on without you: forgegate bench show {told['id']}, or stop {told['id']}" in err
    run("stop", told["id"])


class Answers:
    """Of the admin API, one after the other."""

    def __init__(self, *answers: dict[str, Any] | AdminError) -> None:
        self.answers = list(answers)

    def benchmark(self, run_id: str) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, AdminError):
            raise answer
        return answer


BUSY = AdminError("the admin API at http://x cannot be reached: timed out")
RUNNING = {"id": "1", "state": "running", "num_parts": 0, "num_done": 0, "detail": "begins"}


def test_a_gateway_too_busy_to_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchruns, "POLL_S", 0.0)
    client: Any = Answers(BUSY, BUSY, RUNNING, BUSY, {"id": "1", "state": "done"})
    assert benchruns._followed(client, RUNNING)["state"] == "done"
    assert client.answers == []


@pytest.mark.parametrize(
    ("silence_s", "error"), [(0.0, BUSY), (60.0, AdminError("no benchmark '1'", 404)), (60.0, AdminError("x", 500))]
)
def test_one_that_stays_away_or_refuses_is_an_error(
    silence_s: float, error: AdminError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchruns, "POLL_S", 0.0)
    monkeypatch.setattr(benchruns, "SILENCE_S", silence_s)
    client: Any = Answers(error)
    with pytest.raises(AdminError) as caught:
        benchruns._followed(client, RUNNING)
    assert caught.value is error


@pytest.mark.parametrize("end", [KeyboardInterrupt(), BUSY, BrokenPipeError()])
def test_whatever_ends_the_waiting_says_that_the_run_goes_on(
    end: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended_by(*_: object) -> None:
        raise end

    monkeypatch.setattr(benchruns, "_followed", ended_by)
    client: Any = SimpleNamespace(start_benchmark=lambda order: {**RUNNING, "model": "demo"})
    with pytest.raises(type(end)):
        benchruns._start(client, benchruns.parser().parse_args(["start", "--model", "demo"]))
    assert "it goes on without you: forgegate bench show 1, or stop 1" in capsys.readouterr().err


@pytest.mark.slow
def test_mistakes_are_one_message(run: Run) -> None:
    for arguments, words in (
        (("start",), "--model"),
        (("start", "--model", "mock", "--concurrency", "x"), "numbers separated by commas, for example 1,8, not 'x'"),
        (("start", "--model", "mock", "--concurrency", "0"), "concurrency: must be 1 to 4,096, got 0"),
        (("start", "--model", "mock", "--rate", "2"), "an open loop needs duration_s or requests"),
        (("start", "--model", "mock", "--slo", "interactve"), "did you mean 'interactive'"),
        (("start", "--model", "mock", "--repeats", "21"), "repeats: must be 1 to 20, got 21"),
        *(
            (("start", "--model", "mock", option, value, *more), f"got {value!r}")
            for option, more in (("--duration", ("--rate", "2")), ("--limit", ()))
            for value in ("nan", "inf", "x")
        ),
        (("start", "--model", "mock", "--rate", "nan"), "numbers separated by commas, for example 1,8, not 'nan'"),
        (("start", "--model", "mock", "--rate", "2,inf"), "for example 1,8, not '2,inf'"),
        (("start", "--model", "mok"), "'mok' is not served here; there are: mock"),
        (("show", "nope"), "no benchmark 'nope'"),
        (("stop", "nope"), "no benchmark 'nope'"),
        (("stop",), "ID"),
        (("show", "nope", "--out", "x.pdf"), "a report is fetched as .html or .json: name such a file"),
        (("strat",), "did you mean 'start'"),
        (("--json", "start"), "unknown argument '--json'"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (BAD_INPUT, ""), arguments
        assert words in err, arguments
        assert "Traceback" not in err
    assert json.loads(run("list", "--json")[1]) == [], "nothing unsound was begun"


def test_all_commands_are_in_one_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--help"]) == DONE
    shown = capsys.readouterr().out
    assert all(f"    {name} " in shown for name in ("run", "compare", "versus", "mock", *RUNS))
    for name in RUNS:
        assert cli.main(["bench", name, "--help"]) == DONE
        assert f"  forgegate bench {name}" in capsys.readouterr().out


@pytest.mark.parametrize("action", [("list",), ("show",), ("stop", "x"), ("start", "--model", "demo")])
def test_without_a_running_gateway(
    action: tuple[str, ...], forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *action]) == UNABLE
    assert "no forgegate is running" in capsys.readouterr().err


def test_of_a_gateway_elsewhere_the_report_has_an_address() -> None:
    args = benchruns.parser().parse_args(["show", "--admin-url", "http://gate:8081/"])
    assert benchruns._report_of("1", args).startswith("http://gate:8081/admin/v1/benchmarks/1/report?format=html")


@pytest.mark.parametrize(
    ("state", "is_valid", "is_slo_met", "code"),
    [("done", True, None, DONE), ("done", True, True, DONE), ("done", True, False, NEGATIVE), ("done", False, None, NEGATIVE)],
)  # fmt: skip
def test_what_a_run_came_to_is_the_exit_code(
    state: str, is_valid: bool, is_slo_met: bool | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    args = benchruns.parser().parse_args(["start", "--model", "demo"])
    assert benchruns._end(ended(state, is_valid, is_slo_met), args) == code
    assert ("VOID 8 streams, repeat 0: late" in capsys.readouterr().out) is not is_valid


@pytest.mark.parametrize("state", ["failed", "stopped", "cut"])
def test_a_run_that_came_to_nothing_is_an_error(state: str) -> None:
    args = benchruns.parser().parse_args(["start", "--model", "demo"])
    with pytest.raises(CommandError, match=f"benchmark 1 has no result: {state}: why") as caught:
        benchruns._end(ended(state, None, None), args)
    assert caught.value.exit_code == UNABLE


def ended(state: str, is_valid: bool | None, is_slo_met: bool | None) -> dict[str, Any]:
    level = {
        "load": "8 streams", "is_valid": is_valid, "num_requests": 9, "num_ok": 8, "output_tps": 512.3, "ttft_p50_s": 0.1,
        "ttft_p99_s": None, "tpot_p50_s": 0.01, "tpot_p99_s": None,
    }  # fmt: skip
    return {
        "id": "1", "model": "demo", "resolved": "", "state": state, "detail": "" if state == "done" else "why", "who": "ann", "at": 1.0,
        "ended": 9.0, "num_done": 3, "num_parts": 3, "user_share": 0.02, "is_valid": is_valid, "is_slo_met": is_slo_met,
        "faults": [] if is_valid is not False else ["8 streams, repeat 0: late"], "levels": [level] if state == "done" else [],
        "asked": {"slo": "interactive"},
    }  # fmt: skip


def test_measuring_needs_no_http_client_of_ours() -> None:
    code = "import sys, gateway.bench, benchmarks.cli; print('httpx' in sys.modules, 'backends' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
