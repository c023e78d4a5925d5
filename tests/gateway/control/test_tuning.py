"""Measurements with real children: `speculating_engine` says how fast each depth is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backends.probe import Prober
from backends.process import Launcher
from backends.status import Drain, State
from backends.vllm.options import Options
from backends.vllm.speculation import OFF, Measurement, Rate, Setting
from gateway import errors
from gateway.control.tuneload import Workload
from gateway.control.tuning import Order, default_depths, with_rates
from tests.gateway.control.speculating_engine import Speculating
from tests.gateway.control.tuning_rig import Rig, rig

BY_STREAMS = Setting(2, ((1, 2, 2), (3, 4, 0)))


@pytest.fixture(autouse=True)
def two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.tuneload.MAX_ROUNDS", 2)


@pytest.mark.slow
async def test_an_engine_starts_again_with_the_depths_that_won(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        assert made.backend.started == [Setting(2)], "not measured: as it is configured"
        done = await made.tune()
        assert made.backend.started[1:] == [OFF, Setting(1), Setting(2), BY_STREAMS, BY_STREAMS]
        assert done["event"] == "tuned"
        assert done["chosen"] == {
            "words": "depth by streams: 2 up to 2, then off",
            "depth": 2,
            "schedule": BY_STREAMS.schedule,
        }
        assert (done["before"], done["state"], done["is_taken"]) == ("depth 2", "ready", True)
        one, four = done["streams"]
        assert one["on"][1]["tokens_per_step"] == pytest.approx(2.8, rel=0.1)
        assert 1 < one["on"][1]["needed"] < 2.8 < four["on"][1]["needed"]
        assert four["on"][1]["tokens_per_s"] < four["off"]["tokens_per_s"]
        assert (one["chosen"]["depth"], four["chosen"]["depth"]) == (2, 0)
        texts = [event["text"] for event in made.events[:-1]]
        assert texts[0] == "waiting for its running requests to end"
        assert any(text.startswith("speculation off: ") and text.endswith(" at 4") for text in texts)
        made.life.restart()
        await made.ready()
        assert made.backend.started[-1] == BY_STREAMS, "it is remembered"


@pytest.mark.slow
async def test_a_pool_that_sets_its_depth_keeps_it_and_is_told_so(tmp_path: Path) -> None:
    async with rig(tmp_path, schedule="always") as made:
        done = await made.tune(depths=(2,), passes=2)
        assert made.backend.started[1:] == [OFF, Setting(2), OFF, Setting(2), BY_STREAMS, BY_STREAMS, Setting(2)]
        assert not done["is_taken"]
        assert any("schedule: measured" in note for note in done["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["client leaves", "engine dies", "engine refuses", "does not start", "is started"])
async def test_broken_off_anywhere_the_engine_starts_again_as_it_was(tmp_path: Path, how: str) -> None:
    flags = {"engine dies": ("--dies-at", "1"), "does not start": ("--dies-at", "101")}.get(how, ())
    async with rig(tmp_path, *flags) as made:
        if how == "client leaves":
            job = made.begin()
            await made.told("speculation off: ")
            job.cancel()
            await asyncio.wait({job})
        elif how == "is started":
            job = made.begin()
            await made.told("speculation off: ")
            made.life.start()
            await job
        else:
            await made.tune(workload=Workload(("refuse" if how == "engine refuses" else "x",), 4))
        last = made.events[-1]
        assert last["event"] == "error"
        assert last["error"]["message"].startswith("demo-0: ")
        assert last["error"]["message"].endswith("it starts again as it was")
        await made.ready()
        assert made.backend.started[-1] == Setting(2)
        assert not (tmp_path / "speculation.json").exists()
        reason = {
            "engine refuses": "it answers 400 to what it is measured with: the prompt is too long",
            "engine dies": "an engine to be measured stopped answering",
            "does not start": "an engine to be measured did not start",
            "is started": "started meanwhile by another command",
        }  # fmt: skip
        assert reason.get(how, "broken off") in last["error"]["message"]
        if how == "does not start":
            assert "there is no such depth" in (tmp_path / "demo-0.tune.log").read_text()


async def test_running_requests_end_first_and_a_command_may_keep_the_engine(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.num_running = 1
        job = made.begin()
        async with asyncio.timeout(10):
            while made.fleet.members["demo-0"].status.state is not State.DRAINING:
                await made.fleet.next_report("demo-0")
        await asyncio.sleep(0.1)
        assert made.backend.started == [Setting(2)], "its request runs"
        made.life.start()
        await job
        assert "started meanwhile by another command" in made.events[-1]["error"]["message"]
        assert made.life.status.state is State.READY
        assert made.backend.started == [Setting(2)]


async def test_it_ends_where_the_engine_is_drained_before_it_is_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.life.stop(0.0)
        async with asyncio.timeout(5):
            while made.fleet.members["demo-0"].status.state is not State.STOPPED:
                await made.fleet.next_report("demo-0")
        back = asyncio.ensure_future(made.tuning._back("demo-0"))
        await asyncio.sleep(0)
        made.life.start()
        made.life.drain(Drain("by command", is_command=True))
        async with asyncio.timeout(5):
            assert await back is State.STOPPED


async def test_an_engine_started_after_the_last_trial_voids_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as made:

        async def measure(*_: object) -> Measurement:
            made.life.start()
            await made.ready()
            return Measurement({1: Rate(1.0)}, {2: {1: Rate(2.0, 2.0)}})

        monkeypatch.setattr(made.tuning, "_measure", measure)
        await made.tune(streams=(1,))
        assert "started meanwhile by another command" in made.events[-1]["error"]["message"]
        assert not (tmp_path / "speculation.json").exists()


async def test_what_cannot_be_measured_is_refused_before_anything_stops(tmp_path: Path) -> None:
    launcher, prober = await Launcher.start(), Prober()
    made = Rig(tmp_path, launcher, prober, (), "measured")
    with pytest.raises(errors.NotFound, match="no engine 'x'; there are: demo-0"):
        made.begin(engine_id="x")
    with pytest.raises(errors.Conflict, match=r"no other engine of demo is ready.*--yes"):
        made.begin(is_forced=False)
    with pytest.raises(errors.BadRequest, match="streams: at most 16 numbers from 1 to 256, got 0, 4"):
        made.begin(streams=(4, 0))
    with pytest.raises(errors.BadRequest, match="depths: at most 16 numbers from 1 to 2, got 3"):
        made.begin(depths=(3,))
    made.backend.speculation = Speculating(Options(), tmp_path).speculation
    with pytest.raises(errors.BadRequest, match="demo-0 does not speculate"):
        made.begin()
    depthless = Options.from_mapping({"speculative": {"method": "suffix"}})
    made.backend.speculation = Speculating(depthless, tmp_path).speculation
    with pytest.raises(errors.BadRequest, match="num_speculative_tokens"):
        made.begin()
    assert made.events == []
    assert made.life.status.state is State.STOPPED
    await prober.close()
    await launcher.close()


async def test_what_is_left_out_is_what_the_engine_can_take(tmp_path: Path) -> None:
    launcher, prober = await Launcher.start(), Prober()
    made = Rig(tmp_path, launcher, prober, (), "measured")
    small = {"max_num_seqs": 5, "speculative": {"method": "ngram", "num_speculative_tokens": 6}}
    made.backend.speculation = Speculating(Options.from_mapping(small), tmp_path).speculation
    order, _ = made.tuning._checked(Order("demo-0", is_forced=True))
    assert (order.streams, order.depths) == ((1, 2, 4), (1, 3, 6))
    with pytest.raises(errors.BadRequest, match="from 1 to 5, got 8"):
        made.begin(streams=(8,))
    await prober.close()
    await launcher.close()


async def test_one_at_a_time(tmp_path: Path) -> None:
    launcher, prober = await Launcher.start(), Prober()
    made = Rig(tmp_path, launcher, prober, (), "measured")
    made.begin()
    with pytest.raises(errors.Conflict, match="already"):
        made.begin()
    await made.tuning.close()
    await prober.close()
    await launcher.close()


def test_depths_to_try() -> None:
    assert default_depths(1) == (1,)
    assert default_depths(2) == (1, 2)
    assert default_depths(5) == (1, 2, 5)


def test_of_two_passes_the_better_rate_counts() -> None:
    measured = with_rates(Measurement({}, {}), OFF, {1: Rate(10), 4: Rate(40)})
    measured = with_rates(measured, Setting(2), {1: Rate(15, 2.0), 4: Rate(30, 2.0)})
    measured = with_rates(measured, OFF, {1: Rate(12), 4: Rate(35)})
    measured = with_rates(measured, Setting(2), {1: Rate(14, 2.1), 4: Rate(31, 2.1)})
    assert measured == Measurement({1: Rate(12), 4: Rate(40)}, {2: {1: Rate(15, 2.0), 4: Rate(31, 2.1)}})
    other = with_rates(
        with_rates(measured, BY_STREAMS, {1: Rate(1)}), Setting(2, ((1, 1, 2), (2, 2, 1))), {1: Rate(0.5)}
    )
    assert other.varied_rates == {1: Rate(0.5)}, "another schedule's rates say nothing of this one"
