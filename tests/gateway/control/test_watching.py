"""Aliases that go back by themselves: the real owner of aliases and its store, counts by hand and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway import snapshot as wire
from gateway.control.desired import Watch
from gateway.control.watching import TRIAL_WINDOWS, Watching
from gateway.metrics import ADAPTERS_FILE
from gateway.ttft import bucket_of
from tests.gateway.control.adapter_rig import Rig, rig

WATCH = Watch(0.02, 1.5, 100, 300.0, "ann", 1.0)


@dataclass
class Stage:
    made: Rig
    watching: Watching
    said: list[str]
    versions: list[str]
    now: list[float] = field(default_factory=lambda: [1000.0])

    async def requests(self, version: str, num: int, num_errors: int = 0, ms: float = 40.0, alias: str = "s") -> None:
        """Over two seconds, judged in between and afterwards."""
        half = wire.Tally(alias, version, num // 2, num_errors // 2, {bucket_of(ms): (num - num_errors) // 2})
        for _ in range(2):
            self.now[0] += 1.0
            self.watching.tallied([half])
            await self.watching.look()

    async def flip(self, *names: str) -> None:
        self.now[0] += 1.0
        await self.made.flip("s", *names)
        self.now[0] += 1.0
        await self.watching.look()

    @property
    def serves(self) -> list[str]:
        return self.serves_of("s")

    def serves_of(self, name: str) -> list[str]:
        (alias,) = [alias for alias in self.made.adapters.aliases() if alias.name == name]
        return [share.adapter for share in alias.shares]

    @property
    def newest(self) -> Any:
        return self.made.adapters.history("s")[0]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """The alias `s` serves the first of three versions and is watched."""
    now = [1000.0]
    said: list[str] = []
    async with rig(tmp_path, (4,), clock=lambda: now[0]) as made:
        versions = [await made.add(label, "s") for label in "abc"]
        await made.flip("s", versions[0])
        await made.adapters.watch("s", WATCH)
        watching = Watching(made.adapters, said.append, tmp_path, lambda: now[0])
        found = Stage(made, watching, said, versions, now)
        await watching.look()
        yield found


async def test_a_flip_to_what_fails_is_undone_and_the_history_says_why(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000)
    await stage.flip(b)
    await stage.requests(b, 90, 90)
    assert stage.serves == [b]  # too few
    await stage.requests(b, 20, 2)
    assert stage.serves == [a]
    change = stage.newest
    assert (change.kind, change.who, change.gate, change.shares) == (
        "auto-rollback",
        "watch",
        "ungated",
        (wire.Share(a),),
    )
    assert change.reason.startswith("errors: 91 of 100 requests (91.0%), more than 0.02; before: 0 of 1000")
    assert stage.said == [f"alias s went back to {a}: {change.reason}"]
    assert stage.made.pushed[-1].aliases[0].shares == (wire.Share(a),)
    await stage.requests(a, 1000, 500)  # nothing goes back and forth
    assert (stage.serves, stage.newest) == ([a], change)


async def test_what_is_as_good_as_before_is_left_alone(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000, 10)
    await stage.flip(b)
    for _ in range(5):
        await stage.requests(b, 500, 4, ms=44.0)
    assert (stage.serves, stage.said) == ([b], [])


async def test_a_flip_to_what_is_slow_is_undone(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000, ms=40.0)
    await stage.flip(b)
    await stage.requests(b, 200, ms=90.0)
    assert stage.serves == [a]
    assert "median time to first byte: 83.0 ms, 2.00 times the 41.5 ms of before" in stage.newest.reason


async def test_what_was_before_counts_however_long_ago_it_was_by_now(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000, ms=40.0)
    await stage.flip(b)
    stage.now[0] += 3000.0
    await stage.requests(b, 200, ms=90.0)
    assert stage.serves == [a]


async def test_a_canary_is_held_against_what_runs_beside_it(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000, ms=40.0)
    await stage.flip(a, b)
    for _ in range(3):  # the whole fleet has become slow: no fault of the candidate
        stage.watching.tallied([wire.Tally("s", a, 200, 20, {bucket_of(400.0): 180})])
        await stage.requests(b, 200, 18, ms=400.0)
    assert stage.serves == [a, b]
    await stage.requests(b, 400, 200, ms=400.0)
    assert stage.serves == [a]
    assert "before: 60 of 600 requests" in stage.newest.reason


async def test_a_candidate_that_turns_bad_after_its_canary_leaves_for_good(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.flip(a, b)
    await stage.requests(a, 500)
    await stage.requests(b, 200)
    await stage.flip(b)
    await stage.requests(b, 200, 20)
    assert stage.serves == [a]
    assert "before: 0 of 500" in stage.newest.reason


async def test_what_failed_under_an_earlier_flip_is_not_held_against_the_next(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000)
    await stage.flip(b)
    await stage.requests(b, 200, 200)
    assert stage.serves == [a]
    await stage.requests(a, 200)
    await stage.flip(b)  # mended meanwhile
    await stage.requests(b, 500)
    assert stage.serves == [b]


async def test_only_what_is_new_is_on_trial_and_only_for_a_time(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 200, 100)
    assert stage.serves == [a]  # there is nothing to go back to
    await stage.flip(b)
    stage.now[0] += TRIAL_WINDOWS * WATCH.window_s + 1
    await stage.requests(b, 1000, 1000)
    assert stage.serves == [b]
    await stage.made.adapters.rollback("s", "bob")
    await stage.made.adapters.rollback("s", "bob")
    await stage.requests(b, 1000, 1000)
    assert stage.serves == [b]  # people brought it back


async def test_without_a_watch_nothing_moves(stage: Stage) -> None:
    _, b, _ = stage.versions
    await stage.made.adapters.watch("s", None)
    await stage.flip(b)
    await stage.requests(b, 1000, 1000)
    assert stage.serves == [b]


async def test_what_cannot_go_back_now_is_told_once_and_tried_again(stage: Stage) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000)
    await stage.flip(b)
    engine = stage.made.engines["demo-0"]
    await stage.made.adapters.unload(a)
    engine.refuses.add(a)
    await stage.requests(b, 400, 400)
    await stage.requests(b, 400, 400)
    assert stage.serves == [b]
    assert len(stage.said) == 1
    assert "alias s should go back" in stage.said[0]
    assert "does not fit" in stage.said[0]
    engine.refuses.clear()
    stage.made.adapters._residents.forgive(a)
    await stage.requests(b, 2, 2)
    assert stage.serves == [a]


async def test_one_that_takes_long_to_go_back_holds_up_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.watching.INTERVAL_S", 0.05)
    a, b, c = stage.versions
    await stage.made.flip("t", c)
    await stage.made.adapters.watch("t", WATCH)
    await stage.flip(b)
    await stage.made.flip("t", b)
    await stage.watching.look()
    engine = stage.made.engines["demo-0"]
    await stage.made.adapters.unload(a)
    engine.gate.clear()  # what `s` goes back to is being loaded
    await stage.requests(b, 400, 400)
    assert stage.serves_of("s") == [b]
    await stage.requests(b, 400, 400, alias="t")
    assert (stage.serves_of("s"), stage.serves_of("t")) == ([b], [c])
    engine.gate.set()
    await stage.made.settled()
    await stage.requests(b, 2, 2)
    assert stage.serves_of("s") == [a]
    assert [text.split(":")[0] for text in stage.said] == [f"alias t went back to {c}", f"alias s went back to {a}"]


@pytest.mark.parametrize("is_unwatched", [False, True])
async def test_what_people_did_meanwhile_counts(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_unwatched: bool
) -> None:
    monkeypatch.setattr("gateway.control.watching.INTERVAL_S", 0.05)
    a, b, c = stage.versions
    await stage.made.adapters.prove(c)
    await stage.flip(b)
    engine = stage.made.engines["demo-0"]
    await stage.made.adapters.unload(a)
    engine.gate.clear()  # what it goes back to is being loaded
    await stage.requests(b, 400, 400)
    if is_unwatched:
        await stage.made.adapters.watch("s", None)
    else:
        await stage.made.flip("s", c)
    engine.gate.set()
    await stage.made.settled()
    await stage.watching.look()
    assert stage.serves == ([b] if is_unwatched else [c])
    assert stage.newest.kind == "flip"
    assert len(stage.said) == 1
    assert "s was moved, or is not watched any more" in stage.said[0]


async def test_rules_outlive_control_and_figures_do_not(tmp_path: Path) -> None:
    now: list[float] = [1000.0]
    async with rig(tmp_path, (4,), clock=lambda: now[0]) as made:
        a, b = await made.add("a", "s"), await made.add("b", "s")
        await made.flip("s", a)
        await made.adapters.watch("s", WATCH)
        await made.flip("s", b)
    async with rig(tmp_path, (4,), clock=lambda: now[0]) as made:
        (alias,) = made.adapters.aliases()
        assert alias.watch == WATCH
        said: list[str] = []
        watching = Watching(made.adapters, said.append, None, lambda: now[0])
        watching.start()
        stage = Stage(made, watching, said, [a, b], now)
        await stage.requests(b, 400, ms=4000.0)
        assert stage.serves == [b]  # nobody knows how quick it was before
        await stage.requests(b, 400, 40)
        assert stage.serves == [a]
        await watching.close()


async def test_a_dropped_alias_takes_its_watch_along(stage: Stage) -> None:
    a, _, _ = stage.versions
    await stage.made.adapters.drop("s", "ann")
    await stage.watching.look()
    await stage.flip(a)
    (alias,) = stage.made.adapters.aliases()
    assert alias.watch is None


async def test_figures_and_metrics_are_of_the_window(stage: Stage, tmp_path: Path) -> None:
    a, b, _ = stage.versions
    await stage.requests(a, 1000)
    await stage.flip(b)
    await stage.requests(b, 200, 100)
    told = {view.adapter: view for view in stage.watching.figures("s")}
    assert (told[a].num_requests, told[b].num_requests, told[b].num_errors) == (1000, 200, 100)
    assert told[a].ttft_s == pytest.approx(0.0415, rel=0.01)
    page = (tmp_path / ADAPTERS_FILE).read_text()
    assert f'forgegate_adapter_window_requests{{adapter="{b}",alias="s"}} 200.0' in page
    assert f'forgegate_adapter_window_error_ratio{{adapter="{b}",alias="s"}} 0.5' in page
    assert f'forgegate_adapter_window_ttft_seconds{{adapter="{a}",alias="s"}} 0.04' in page
    assert 'forgegate_adapter_auto_rollbacks_total{alias="s"} 1.0' in page
    stage.now[0] += WATCH.window_s + 1
    assert stage.watching.figures("s") == ()
    assert stage.watching.figures("nobody") == ()
