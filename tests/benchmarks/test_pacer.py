import asyncio
import sys
import time

import pytest

from benchmarks import pacer
from benchmarks.pacer import Pacer


@pytest.fixture(params=["kernel", "spin"])
def alarms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "spin":
        monkeypatch.setattr(pacer.sys, "platform", "darwin")
    elif sys.platform != "linux":
        pytest.skip("timerfd is Linux's")


@pytest.mark.usefixtures("alarms")
async def test_calls_come_in_the_order_of_their_times_and_never_early():
    timer, calls, done = Pacer(), [], asyncio.Event()
    start_s = time.monotonic()
    for after_s in (0.03, 0.01, 0.02, -5.0, 0.01):
        timer.at(start_s + after_s, lambda after_s=after_s: calls.append((after_s, time.monotonic() - start_s)))
    timer.at(start_s + 0.04, done.set)
    await asyncio.wait_for(done.wait(), 5)
    timer.close()
    assert [after_s for after_s, _ in calls] == [-5.0, 0.01, 0.01, 0.02, 0.03]
    assert all(at_s >= after_s for after_s, at_s in calls)


@pytest.mark.usefixtures("alarms")
async def test_a_call_may_ask_for_the_next_one():
    timer, done, times = Pacer(), asyncio.Event(), []

    def again() -> None:
        times.append(time.monotonic())
        if len(times) < 20:
            timer.at(times[0] + len(times) * 0.002, again)
        else:
            done.set()

    timer.at(time.monotonic(), again)
    await asyncio.wait_for(done.wait(), 5)
    timer.close()
    assert times[-1] - times[0] >= 19 * 0.002


@pytest.mark.usefixtures("alarms")
async def test_a_closed_pacer_calls_no_more():
    timer, calls = Pacer(), []
    timer.at(time.monotonic() + 0.01, lambda: calls.append(1))
    timer.close()
    timer.close()
    await asyncio.sleep(0.03)
    assert not calls
