import asyncio
import io
from array import array

import pytest

from benchmarks.campaign import MeasuredRun
from benchmarks.loadgen import LoadRun
from benchmarks.loads import ClosedLoad
from benchmarks.metrics import summarise
from benchmarks.progress import Progress, expected_of, span
from benchmarks.sweep import Sweep, steady_load
from benchmarks.validity import Verdict
from tests.benchmarks.records import record

LOADS = (ClosedLoad(4, 10), steady_load(10.0, Sweep().spacing, 40.0))
RUN = LoadRun(4, (record(intended_s=10.5),), 10.0, 15.0, 0.5, 4, array("d"), 0.1)
MEASURED = MeasuredRun(0, 0, RUN, summarise(RUN.records, RUN.duration_s), Verdict(), ClosedLoad(4, 10))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (3900, "1 h 5 min")],
)
def test_spans(seconds: float, expected: str):
    assert span(seconds) == expected


def test_it_says_before_what_will_be_done_and_for_how_long():
    out = io.StringIO()
    progress = Progress(out, expected_of(LOADS, 2), 4)
    progress.announce("loads")
    progress.warmed(RUN)
    progress.ended(MEASURED)
    first, second, third = out.getvalue().splitlines()
    assert first == "loads, at least 1 min 20 s"
    # 10 requests by 4 streams take three answers of 4.5 s each, a rate 40 s and one more; both twice
    assert second == "about 1 min 56 s (a request of the warm-up took 4.5 s)"
    assert third.startswith("[1/4] 4 streams, repeat 0: ")


def test_a_search_says_between_what():
    out = io.StringIO()
    Progress(out, lambda e2e_s: (60.0, 300.0 + e2e_s), None).warmed(RUN)
    assert out.getvalue().startswith("about 1 min to 5 min 4 s ")


async def test_a_terminal_sees_a_run_go_on():
    out = Terminal()
    ended = iter([3, 8])
    progress = Progress(out, expected_of(LOADS, 1), None, lambda: next(ended))
    progress.started(LOADS[1], 0, 2)
    await asyncio.sleep(0)
    progress.ended(MEASURED)
    assert "[3] 10 req/s, repeat 0: 0 of about 40 s, 5 requests ended" in out.getvalue()
    assert out.getvalue().splitlines()[-1].endswith("[1] 4 streams, repeat 0: 1 tok/s, 1/1 answered")


async def test_elsewhere_only_what_has_ended_is_told():
    out = io.StringIO()
    Progress(out, expected_of(LOADS, 1), 2).started(LOADS[1], 0, 0)
    await asyncio.sleep(0)
    assert out.getvalue() == ""
