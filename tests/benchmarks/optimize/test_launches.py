"""What surrounds real engines: leftovers, links into the user's home, and how a run is read under an SLO."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.campaign import MeasuredRun
from benchmarks.loadgen import LoadRun
from benchmarks.loads import ClosedLoad
from benchmarks.metrics import summarise
from benchmarks.optimize.launches import GatewayLaunches, Served, config_of, probe_of_run
from benchmarks.optimize.levels import Concurrency
from benchmarks.record import Record
from benchmarks.statistics.slo import parse_slo
from benchmarks.validity import Verdict
from benchmarks.workload import Workload
from tests.benchmarks.records import failed, record

SLO = parse_slo("ttft_p50<2s")
SERVED = Served("llamacpp", "demo", Workload("candidate"), SLO, Concurrency(), 8, 60.0, 60.0)


@pytest.fixture
def sleeper() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Processes that belong to a home."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(home: Path) -> subprocess.Popen[bytes]:
        code = "import time; print(flush=True); time.sleep(60)"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "FORGEGATE_HOME": str(home)}
        )
        assert process.stdout is not None
        process.stdout.readline()  # until then it still has its parent's environment
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


async def test_what_a_killed_search_left_is_ended_and_nothing_else(
    tmp_path: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    launches = GatewayLaunches(SERVED, tmp_path / "ours")
    ours, other = sleeper(tmp_path / "ours" / "home"), sleeper(tmp_path / "other" / "home")
    assert await launches.end_leftovers() == 1
    assert ours.wait(5) != 0
    assert other.poll() is None
    assert await launches.end_leftovers() == 0


def test_environments_and_models_of_the_users_home_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "envs" / "llamacpp").mkdir(parents=True)
    monkeypatch.setenv("FORGEGATE_HOME", str(theirs))
    for _ in range(2):
        GatewayLaunches(SERVED, tmp_path / "ours")
    assert (tmp_path / "ours" / "home" / "envs" / "llamacpp").is_dir()
    assert not (tmp_path / "ours" / "home" / "models").exists()


def test_the_configuration_names_engine_model_and_options() -> None:
    assert config_of(SERVED, "mine", {"n_batch": 64}) == {
        "models": [{"name": "mine", "pools": [{"engine": "llamacpp", "model": "demo", "options": {"n_batch": 64}}]}]
    }


def measured(records: Sequence[Record], faults: tuple[str, ...] = ()) -> MeasuredRun:
    run = LoadRun(2, tuple(records), 10.0, 20.0, 0.1, 2, array("d"), 0.1)
    return MeasuredRun(0, 0, run, summarise(records, 10.0), Verdict(faults), ClosedLoad(2, len(records)))


def test_a_load_is_carried_where_the_share_held_the_limit() -> None:
    probe = probe_of_run(measured([record()] * 3 + [record(chunk_times_s=(13.0, 13.5, 14.0, 14.5))]), 2, SLO, 11.0)
    assert probe.is_carried
    assert (probe.goodput, probe.missed) == (0.3, {"ttft_p50<2000ms": (1, 4)})
    assert probe.duration_s == 11.0


def test_failed_requests_and_void_runs_are_not_carried() -> None:
    probe = probe_of_run(measured([record(), failed(), failed()]), 2, SLO, 11.0)
    assert "ttft_p50<2000ms is held by 33.3% of 3 requests" in probe.why_not
    assert probe.num_failed == 2
    assert probe_of_run(measured([record()], ("the client was late",)), 2, SLO, 11.0).why_not == "the client was late"
