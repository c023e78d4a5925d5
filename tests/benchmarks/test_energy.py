"""Joules by a counter, against a driver whose truth is known."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import metrics
from benchmarks.campaign import Plan, level_of
from benchmarks.cli import main
from benchmarks.energy import Gpu, Meter, is_here, joules, metered, opened
from benchmarks.loads import ClosedLoad
from benchmarks.metrics import summarise
from benchmarks.probe import UnusableError
from benchmarks.report import level_dict
from benchmarks.workload import Workload
from tests.benchmarks.records import record
from tests.benchmarks.test_progress import MEASURED

WATTS = (100.0, 300.0)
ASKED = ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName")


class NVMLError(Exception):
    """As pynvml's."""


class Driver:
    """NVML of a machine whose cards take a constant power."""

    NVMLError = NVMLError

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        """The call that fails."""
        self.is_open = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name == object.__getattribute__(self, "fault"):
            raise NVMLError("Not Supported")
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        return len(WATTS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:
        return (b"NVIDIA Old", "NVIDIA New")[handle]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return round(1e3 * WATTS[handle] * time.monotonic())


def test_what_falls_between_readings_is_shared_out_by_time():
    readings = [(0.0, 10.0), (1.0, 20.0), (3.0, 80.0)]
    assert joules(readings, 0.0, 3.0) == 70
    assert joules(readings, 0.5, 2.0) == pytest.approx(5 + 30)
    assert joules(readings, 1.0, 1.0) == 0


@pytest.mark.parametrize(
    "readings",
    [[], [(0.0, 1.0)], [(0.5, 1.0), (3.0, 9.0)], [(0.0, 1.0), (1.5, 9.0)], [(0.0, 9.0), (1.0, 1.0), (3.0, 10.0)]],
    ids=["none", "one", "late", "early", "the driver was loaded anew"],
)
def test_what_the_readings_do_not_hold_is_not_known(readings: list[tuple[float, float]]):
    assert joules(readings, 0.0 if len(readings) != 1 else -1.0, 2.0) is None


async def test_readings_enclose_the_run_and_go_on_meanwhile():
    with opened((0, 1), "127.0.0.1", Driver()) as meter:
        assert meter is not None
        assert meter.gpus == (Gpu(0, "NVIDIA Old"), Gpu(1, "NVIDIA New"))
        async with metered(meter, time.monotonic, 0.02) as readings:
            started_s = time.monotonic()
            await asyncio.sleep(0.2)
            ended_s = time.monotonic()
    assert len(readings) > 3
    assert joules(readings, started_s, ended_s) == pytest.approx(sum(WATTS) * (ended_s - started_s), rel=0.05)


async def test_a_driver_that_falls_silent_costs_the_energy_and_nothing_else():
    driver = Driver()
    with opened((), "127.0.0.1", driver) as meter:
        async with metered(meter, time.monotonic, 0.02) as readings:
            driver.fault = "nvmlDeviceGetTotalEnergyConsumption"
            await asyncio.sleep(0.05)
            ended_s = time.monotonic()
    assert joules(readings, readings[0][0], ended_s) is None


def test_every_call_of_nvml_may_fail():
    calls = {name for name in vars(Driver) if name.startswith("nvml")}
    assert calls == {*ASKED, "nvmlDeviceGetTotalEnergyConsumption", "nvmlShutdown"}
    with opened((0,), "127.0.0.1", Driver("nvmlShutdown")) as meter:
        assert meter is not None
        assert meter.read() is not None


async def test_nobody_is_asked_where_no_card_is_named():
    with opened(None, "192.0.2.1", Driver("nvmlInit")) as meter:
        assert meter is None
        async with metered(meter, time.monotonic) as readings:
            pass
    assert readings == []


@pytest.mark.parametrize(
    ("gpus", "host", "fault", "is_environment", "says"),
    [
        ((2,), "127.0.0.1", "", False, "--energy-gpus 2: this machine has 0 to 1"),
        ((0,), "192.0.2.1", "", False, "192.0.2.1 is another machine"),
        *(((0,), "127.0.0.1", call, True, "NVML cannot be asked (Not Supported)") for call in ASKED),
        ((1,), "127.0.0.1", "nvmlDeviceGetTotalEnergyConsumption", True, "GPU 1 (NVIDIA New) does not count its energy"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before(
    gpus: tuple[int, ...], host: str, fault: str, is_environment: bool, says: str
):
    driver = Driver(fault)
    with pytest.raises(UnusableError) as caught, opened(gpus, host, driver):
        pass
    assert says in str(caught.value)
    assert caught.value.is_environment is is_environment
    assert not driver.is_open


@pytest.mark.parametrize(("host", "is_ours"), [("127.0.0.1", True), ("localhost", True), ("192.0.2.1", False)])
def test_which_hosts_are_this_machine(host: str, is_ours: bool):
    assert is_here(host) is is_ours


def test_energy_by_output_tokens():
    summary = summarise([record(), record()], 2.0, energy_j=60.0)
    assert summary.energy_j == 60
    assert summary.energy_per_token_j == 60 / summary.output_tokens
    unknown = summarise([record()], 1.0)
    assert (unknown.energy_j, unknown.energy_per_token_j) == (None, None)
    assert summarise([], 1.0, energy_j=60.0).energy_per_token_j is None
    assert "energy_per_token" in metrics.definitions()


def test_repeats_are_added_up_where_all_are_known():
    def run(energy_j: float | None) -> Any:
        records = MEASURED.load.records
        return _with(MEASURED, summarise(records, MEASURED.load.duration_s, energy_j=energy_j))

    known = level_of(4, [run(10.0), run(20.0)])
    assert known.pooled.energy_j == 30
    assert level_of(4, [run(10.0), run(None)]).pooled.energy_j is None
    found = level_dict(known, Plan(Workload("m"), (4,), meter=Meter(Driver(), {Gpu(1, "NVIDIA New"): 1})))
    assert found["energy"]["sentence"] == (
        f"30 J of GPU 1 (NVIDIA New), {30 / known.pooled.duration_s:,.0f} W, {30 / known.pooled.output_tokens:.3g} J per output token"
    )
    assert "energy" not in level_dict(known)


def _with(run: Any, summary: Any) -> Any:
    return type(run)(run.repeat, run.order, run.load, summary, run.verdict, ClosedLoad(4, 10))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_says_how_much_it_took(
    url: str, processes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "pynvml", Driver())  # type: ignore[arg-type] # what is asked of the module
    outs = {suffix: tmp_path / f"run.{suffix}" for suffix in ("json", "csv", "md", "html")}
    words = ["run", "--no-ceiling", "--url", url, "--model", "alpha", "--concurrency", "2", "--requests", "40"]
    words += ["--output-tokens", "20", "--repeats", "2", "--processes", processes, "--energy-gpus", "1"]
    assert main([*words, *(word for out in outs.values() for word in ("--out", str(out)))]) in (0, 1)
    result = json.loads(outs["json"].read_text("utf-8"))
    assert result["plan"]["energy_gpus"] == [{"index": 1, "name": "NVIDIA New"}]
    (level,) = result["levels"]
    for run in level["runs"]:
        summary = run["summary"]
        assert summary["energy_j"] == pytest.approx(300 * summary["duration_s"], rel=0.1), (
            "no start of a process is in it"
        )
        assert summary["energy_per_token_j"] == pytest.approx(summary["energy_j"] / summary["output_tokens"])
    assert level["pooled"]["energy_j"] == pytest.approx(sum(run["summary"]["energy_j"] for run in level["runs"]))
    said = "J of GPU 1 (NVIDIA New), "
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in outs["md"].read_text("utf-8")
    assert said in outs["html"].read_text("utf-8")
    with outs["csv"].open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["energy_j"]) == level["pooled"]["energy_j"]


def test_energy_that_is_not_known_in_the_end_is_said_so(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "pynvml", Driver())  # type: ignore[arg-type] # as above
    monkeypatch.setattr(Meter, "read", lambda _: None)
    words = ["run", "--no-ceiling", "--url", url, "--model", "alpha", "--concurrency", "2", "--output-tokens", "5"]
    assert main([*words, "--repeats", "1", "--energy-gpus", "all", "--json"]) in (0, 1)
    (level,) = json.loads(capsys.readouterr().out)["levels"]
    assert "energy" not in level
    assert "how much energy it took is not known: NVML stopped answering" in level["remarks"]


@pytest.mark.parametrize(
    ("value", "says"), [("x", "'x' is not a whole number"), ("0,0", "names a GPU twice"), (",", "names no GPU")]
)
def test_numbers_of_cards(value: str, says: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--energy-gpus", value]) == 2
    assert says in capsys.readouterr().err
