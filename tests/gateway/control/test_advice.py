from __future__ import annotations

from pathlib import Path

import pytest

from backends.base import Load
from backends.status import State, Status
from backends.vllm.measured import SEEN_S, Memory, Record, Seen
from backends.vllm.options import Options
from backends.vllm.speculation import OFF, Measurement, Rate, Setting
from gateway.control.advice import KEEP_EVERY, PATIENCE, Advisor
from gateway.control.fleet import Member
from tests.gateway.control.speculating_engine import Speculating

MEASURED = Measurement(
    off={1: Rate(100), 8: Rate(800)},
    on={2: {1: Rate(150, 2.1), 8: Rate(880, 2.1)}},
)
"""Costs 1.4 at 1 stream and 1.91 at 8."""
NEEDED = "speculation loses at 8 streams: 1.40 tokens a step where 1.91 are needed"


class Engine:
    """One engine's advice, told or asked."""

    def __init__(
        self, folder: Path, measured: Measurement | None, data_parallel: int = 1, **speculative: object
    ) -> None:
        given = {"method": "ngram", "num_speculative_tokens": 2, **speculative}
        options = Options.from_mapping({"data_parallel_size": data_parallel, "speculative": given})
        self.backend = Speculating(options, folder)
        self.memory, self.tuned = Memory(folder), self.backend.speculation
        self.now = 1e9
        self.tuned._clock = lambda: self.now
        self.settle()
        if measured is not None:
            assert self.tuned.subject is not None
            self.tuned.keep(Record(self.tuned.subject, measured, "now"))
            self.settle()
        self.told: list[str] = []
        self.advisor = Advisor(lambda _: self.backend, lambda _, text: self.told.append(text), lambda: self.now)
        self.member = Member("demo-0", 0, "vllm", "demo", (), status=Status(State.READY, ""))
        self.num_drafts = self.num_accepted = 0

    def settle(self) -> None:
        self.tuned.settle("sha256:m", "", "0.32.0 on cpu")

    async def start(self) -> None:
        await self.advisor.before_traffic("demo-0", self.member.status)

    def work(self, tokens_per_step: float, num_streams: int, num_looks: int) -> None:
        for _ in range(num_looks):
            self.num_drafts += 1000
            self.num_accepted += round(1000 * (tokens_per_step - 1))
            self.advisor.hear(self.member, self.load(num_streams))

    def load(self, num_streams: int) -> Load:
        return Load(
            num_running=num_streams, num_drafts=self.num_drafts, num_accepted_tokens=self.num_accepted,
            num_generated_tokens=self.num_drafts + self.num_accepted,
        )  # fmt: skip

    def seen(self) -> Seen | None:
        assert self.tuned.record is not None
        return self.tuned.record.seen

    def advice(self) -> str:
        return self.advisor.advice("demo-0")


async def test_what_is_not_measured_is_said_once_and_shown(tmp_path: Path) -> None:
    engine = Engine(tmp_path, None)
    assert engine.advice() == "", "not started"
    await engine.start()
    assert engine.advice() == "speculation is not measured here: forgegate engines tune demo-0"
    assert engine.told == [engine.advice()]
    engine.work(1.0, 8, 100)
    assert len(engine.told) == 1


async def test_a_pool_that_sets_its_depth_is_not_bothered(tmp_path: Path) -> None:
    engine = Engine(tmp_path, None, schedule="always")
    await engine.start()
    assert (engine.advice(), engine.told) == ("", [])


async def test_a_loss_that_lasts_is_told_and_changes_the_next_start(tmp_path: Path) -> None:
    engine = Engine(tmp_path, MEASURED)
    await engine.start()
    assert engine.told == ["speculation as measured here: depth 2"]
    assert engine.advice() == ""
    engine.work(1.4, 8, PATIENCE)  # the first look has nothing before it
    assert engine.advice() == "", "a burst is no reason"
    engine.work(1.4, 8, 1)
    expected = f"{NEEDED}; its next start takes this into account (off): forgegate engines restart demo-0"
    assert engine.advice() == expected
    assert engine.told[1:] == [expected]
    engine.work(1.4, 8, 20)
    assert len(engine.told) == 2, "told once"
    assert engine.tuned.subject is not None
    found = engine.memory.find(engine.tuned.subject)
    assert found is not None
    assert found.seen == Seen(2, 1.4, engine.now)
    engine.settle()
    await engine.start()
    assert engine.tuned.setting == OFF
    assert engine.advice() == ""
    assert engine.told[-1] == (
        "speculation as measured here: off; clients' texts gave 1.40 tokens a step at depth 2, else it would be depth 2; "
        "that is forgotten a day after it was seen"
    )
    engine.now += SEEN_S + 1
    engine.settle()
    await engine.start()
    assert (engine.tuned.setting, engine.seen()) == (Setting(2), None), "else nothing would ever be seen again"
    assert engine.told[-1] == "speculation as measured here: depth 2"


async def test_time_at_another_depth_says_nothing_of_this_one(tmp_path: Path) -> None:
    engine = Engine(tmp_path, MEASURED, num_speculative_tokens_per_batch_size=[[1, 4, 2], [5, 16, 0]])
    await engine.start()
    for _ in range(50):
        engine.work(1.1, 1, 1)
        engine.work(1.1, 8, 1)
    assert engine.advice() == ""
    engine.work(1.1, 1, PATIENCE + 1)
    assert engine.advice().startswith("speculation loses at 1 stream: 1.10 tokens a step where 1.40 are needed")


async def test_a_loss_that_ends_is_not_shown_any_more(tmp_path: Path) -> None:
    engine = Engine(tmp_path, MEASURED, schedule="always")
    await engine.start()
    engine.work(1.4, 8, PATIENCE + 1)
    assert engine.advice() == f"{NEEDED}; let `schedule: measured` choose the depth, or leave `speculative` out"
    engine.work(2.9, 8, 60)
    assert engine.advice() == ""
    engine.work(1.45, 1, 60)
    assert engine.advice() == "", "at 1 stream so much is enough"


async def test_where_one_depth_is_all_there_is_the_advice_says_what_to_do(tmp_path: Path) -> None:
    wins_at_one = Measurement(off={1: Rate(100), 8: Rate(800)}, on={2: {1: Rate(300, 2.9), 8: Rate(700, 2.9)}})
    engine = Engine(tmp_path, wins_at_one, data_parallel=2)
    await engine.start()
    engine.work(2.9, 8, PATIENCE + 1)
    assert engine.tuned.setting == Setting(2)
    assert "data_parallel_size above 1" in engine.advice()


async def test_where_it_wins_more_elsewhere_it_stays(tmp_path: Path) -> None:
    wins_at_one = Measurement(off={1: Rate(100), 8: Rate(800)}, on={2: {1: Rate(300, 2.9), 8: Rate(700, 2.9)}})
    engine = Engine(tmp_path, wins_at_one)
    await engine.start()
    engine.work(2.9, 8, PATIENCE + 1)
    assert engine.advice().endswith(
        "it wins more at other sizes; a pool without `speculative` would serve such load better"
    )


async def test_batches_far_larger_than_measured_are_to_be_measured(tmp_path: Path) -> None:
    engine = Engine(tmp_path, MEASURED)
    await engine.start()
    engine.work(2.1, 15, PATIENCE + 1)
    assert engine.advice() == ""
    engine.work(2.1, 24, 60)
    assert (
        engine.advice() == "speculation is not measured at 24 streams: forgegate engines tune demo-0 --streams 1,8,24"
    )
    engine.work(2.1, 4, 100)
    assert engine.advice() == ""


async def test_a_replica_that_runs_an_older_setting_is_to_be_restarted(tmp_path: Path) -> None:
    engine = Engine(tmp_path, None)
    await engine.start()
    assert engine.tuned.subject is not None
    loses = Measurement(off={1: Rate(100)}, on={2: {1: Rate(80, 2.1)}})
    engine.tuned.keep(Record(engine.tuned.subject, loses, "now"))
    assert engine.advice() == "as measured it would speculate otherwise (off): forgegate engines restart demo-0"


async def test_what_a_replica_sees_does_not_bring_an_older_measurement_back(tmp_path: Path) -> None:
    engine = Engine(tmp_path, MEASURED)
    await engine.start()
    assert engine.tuned.subject is not None
    newer = Record(engine.tuned.subject, Measurement(off={1: Rate(100)}, on={2: {1: Rate(80, 2.1)}}), "later")
    engine.tuned.keep(newer)
    engine.work(2.0, 1, KEEP_EVERY + 1)
    assert engine.memory.find(engine.tuned.subject) == engine.tuned.record == newer


async def test_what_is_accepted_is_kept_now_and_then_and_a_full_disk_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path, MEASURED)
    await engine.start()
    engine.work(2.0, 1, KEEP_EVERY)
    assert engine.seen() is None
    engine.work(2.0, 1, 1)
    assert engine.seen() == Seen(2, 2.0, engine.now)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    engine.work(2.2, 1, KEEP_EVERY)
    assert engine.seen() == Seen(2, 2.0, engine.now)
    engine.advisor.hear(engine.member, Load())  # counts that fell back say nothing
    assert engine.advice() == ""
