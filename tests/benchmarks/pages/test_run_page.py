"""The page of a run: what is on it, and what a browser shows of it."""

from __future__ import annotations

import copy
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.campaign import MeasuredRun, Plan, level_of
from benchmarks.forms import FormError, rendered, require_known, table_csv, table_markdown
from benchmarks.loadgen import LoadRun
from benchmarks.loads import ClosedLoad
from benchmarks.metrics import summarise
from benchmarks.pages.run import render
from benchmarks.pages.runcharts import charts
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
