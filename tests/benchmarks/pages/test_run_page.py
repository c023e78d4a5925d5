"""The page of a run: what is on it, and what a browser shows of it."""

from __future__ import annotations

import copy
import csv
import io
from array import array
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.beyond import Beyond, Cause
from benchmarks.campaign import MeasuredRun, Plan, level_of
from benchmarks.capacity import capacity_of, trial_of
from benchmarks.forms import FormError, rendered, require_known, table_csv, table_markdown
from benchmarks.loadgen import LoadRun
from benchmarks.loads import ClosedLoad, OpenLoad
from benchmarks.metrics import summarise
from benchmarks.pages.run import loads, render
from benchmarks.pages.runcharts import charts, limits_of
from benchmarks.statistics.slo import parse_slo
from benchmarks.table import print_run
from benchmarks.traffic.arrivals import Arrivals, Steady
from benchmarks.validity import Verdict
from benchmarks.workload import Workload
from tests.benchmarks.records import failed, record
from tests.browser import CHROMIUM, DRIVER, MISSING, Browser

PLOTS = {
    "throughput-streams", "ttft_user_s-streams", "tpot_s-streams", "e2e_user_s-streams", "pareto", "cdf-ttft_user_s", "cdf-tpot_s",
    "cdf-e2e_user_s", "timeline-0", "timeline-1",
}  # fmt: skip


def a_run(concurrency: int, repeat: int, faults: tuple[str, ...] = ()) -> MeasuredRun:
    records = (*(record(index=index, intended_s=10.0 + 0.01 * index, end_s=14.6) for index in range(120)), failed())
    load = LoadRun(concurrency, records, 10.0, 16.0, 0.5, 4, array("d"), 0.1)
    return MeasuredRun(
        repeat,
        repeat,
        load,
        summarise(records, load.duration_s),
        Verdict(faults, ("<b>a remark",)),
        ClosedLoad(concurrency, 121),
    )


def a_result(faults: tuple[str, ...] = ()) -> dict[str, Any]:
    return copy.deepcopy(made(faults))


@cache
def made(faults: tuple[str, ...]) -> dict[str, Any]:
    levels = [level_of(1, [a_run(1, 0), a_run(1, 1)]), level_of(8, [a_run(8, 0, faults), a_run(8, 1)])]
    plan = Plan(Workload("demo"), (1, 8), repeats=2)
    return report.run_document(["forgegate", "bench", "run"], "http://127.0.0.1:1", plan, levels)


def test_every_plot_that_the_figures_allow() -> None:
    assert {each.key for each in charts(a_result()["levels"])} == PLOTS


def test_what_a_document_does_not_hold_is_not_drawn() -> None:
    """As of an older version: no curves, no timeline."""
    result = a_result()
    for level in result["levels"]:
        del level["curves"]
        for run in level["runs"]:
            del run["timeline"]
    keys = {each.key for each in charts(result["levels"])}
    assert keys == {key for key in PLOTS if not key.startswith(("cdf", "timeline"))}
    assert "<svg" in render(result)


def test_a_void_run_says_so_first() -> None:
    page = render(a_result(("the client used 99 % of a core",)))
    assert page.index("VOID") < page.index("<table")
    assert "8 streams, repeat 0: the client used 99 % of a core" in page
    assert "<b>a remark" not in page


def test_a_limit_is_drawn_where_its_metric_is() -> None:
    result = a_result() | {"slo": {"ttft_user_s": 0.5}}
    limits = {each.key: each.limits for each in charts(result["levels"], result["slo"])}
    assert limits["ttft_user_s-streams"] == (("limit 500 ms", 500.0),)
    assert limits["tpot_s-streams"] == ()


def test_rates_and_streams_do_not_share_an_axis() -> None:
    result = a_result()
    result["levels"].append(copy.deepcopy(result["levels"][0]) | {"rate": 12.5})
    keys = {each.key for each in charts(result["levels"])}
    assert {"throughput-streams", "throughput-rate"} < keys
    assert "12.5 requests/s" in render(result)


def a_survey() -> dict[str, Any]:
    """Two closed loops, two rates and one that was too much, under an SLO."""
    slo = parse_slo("ttft_p99<5s,tpot_p99<2s")
    plan = Plan(Workload("demo"), (1, 8), slo=slo, num_gpus=2)
    ends = [level_of(1, [a_run(1, 0)], 2), level_of(8, [a_run(8, 0)], 2)]
    rates = [level_of(0, [a_rate(rate)], 2) for rate in (5.0, 10.0, 20.0)]
    stop = Beyond(rates[2], Cause.QUEUE, "over 38 s it <grew>")
    capacity = capacity_of([trial_of(level, level.runs[0].offered.rate or 0.0, slo) for level in rates])
    return report.run_document(
        ["forgegate", "bench", "run"], "http://127.0.0.1:1", plan, [*ends, *rates[:2]],
        profile="sweep", beyond=[stop], stop=stop, capacity=capacity,
    )  # fmt: skip


def a_rate(rate: float) -> MeasuredRun:
    return replace(a_run(0, 0), offered=OpenLoad(Arrivals(Steady(rate)), duration_s=40.0))


def test_a_survey_is_drawn_from_idle_to_full_on_one_axis() -> None:
    result = a_survey()
    drawn = charts(loads(result), limits_of(result["slo"]), is_survey=True)
    by_key = {each.key: each for each in drawn}
    assert {
        "throughput-answered",
        "goodput-answered",
        "ttft_user_s-answered",
        "tpot_s-answered",
        "pareto",
    } < by_key.keys()
    assert not any(key.endswith(("-streams", "-rate")) for key in by_key)
    assert {len(series.points) for series in by_key["ttft_user_s-answered"].series} == {5}
    assert by_key["ttft_user_s-answered"].limits == (("limit 5000 ms", 5000.0),)
    assert by_key["tpot_s-answered"].limits == (("limit 2000 ms", 2000.0),)
    assert by_key["pareto"].y_label == "tok/s per GPU"


def test_a_survey_says_what_it_found_and_how_sure_it_is() -> None:
    page = render(a_survey())
    assert page.index("capacity@SLO: none shown; 5 requests/s is undecided") < page.index("<table")
    assert "the sweep stopped at 20 req/s, more than the server carries: over 38 s it &lt;grew&gt;" in page
    assert "Held against ttft_p99&lt;5000ms,tpot_p99&lt;2000ms" in page
    assert "How sure it is" in page
    assert page.count("not settled: ") == 4
    assert "What the figures mean (definitions, version 4)" in page


def test_a_survey_as_a_table_of_values() -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(a_survey()))))
    assert [row["load"] for row in rows] == ["1", "8", "5", "10", "20"]
    assert {row["slo_confidence"] for row in rows} == {"0.99"}
    assert {row["capacity_requests_per_s"] for row in rows} == {""}
    assert [row["slo_answer"] for row in rows] == ["undecided"] * 4 + ["failed"]
    assert [row["too_much"] for row in rows] == [""] * 4 + ["over 38 s it <grew>"]


def test_definitions_of_another_version_are_not_shown() -> None:
    assert "What the figures mean" not in render(a_result() | {"metrics_version": 1})


def test_a_table_shows_a_survey(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(a_survey(), Console(width=220))
    printed = capsys.readouterr().out
    assert "20 req/s: more than the server carries: over 38 s it <grew>; the sweep stopped there" in printed
    assert "capacity@SLO: none shown; 5 requests/s is undecided" in printed
    assert printed.count("too much") == 1
    assert printed.count("not settled") == 4


def test_another_kind_of_document_is_refused() -> None:
    with pytest.raises(ValueError, match="of kind 'forgetting'"):
        render({"kind": "forgetting"})


def test_each_form_by_its_name() -> None:
    result = a_result()
    assert rendered(result, Path("a.JSON")).startswith(b"{")
    assert rendered(result, Path("a.html")).startswith(b"<!doctype html>")
    rows = [line.split(",") for line in table_csv(result).splitlines()]
    assert len(rows) == 3
    assert len({len(row) for row in rows}) == 1
    assert rows[1][rows[0].index("num_requests")] == "242"
    assert table_markdown(result).count("\n| ") == 3
    with pytest.raises(FormError, match=r"b\.xls: a result is written as \.json, \.csv, \.md, \.html"):
        require_known(Path("b.xls"))


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (390, True)])
def test_a_browser_shows_it(tmp_path: Path, width: int, is_dark: bool) -> None:
    (tmp_path / "run.html").write_text(render(a_result()), "utf-8")
    with Browser(tmp_path / "profile", width, is_dark) as browser:
        browser.open((tmp_path / "run.html").as_uri())
        assert "Valid: no rule is broken" in browser.text()
        script = "return [...document.querySelectorAll('figure')].map(f => [f.id, f.querySelector('polyline').getTotalLength()])"
        lengths = dict(browser.run(script))
        assert lengths.keys() == PLOTS
        assert all(lengths[key] > 100 for key in PLOTS - {"pareto"})
        assert browser.overflow() <= 0
        assert not browser.complaints()
