from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backends.base import Load
from backends.status import State, Status
from backends.vllm.load import load_of
from backends.vllm.versions import table_of
from gateway.control.fleet import Member
from gateway.control.loadwatch import COUNTERS, MAX_AGE_S, LoadWatch, Tally
from gateway.metrics import ENGINES_FILE
from tests.backends.vllm.recorded import VERSIONS, metrics_page


class Engines:
    """Two engines of one model, what each answers, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.members = {
            name: Member(name, slot, "vllm", "demo", (), status=Status(State.READY, ""))
            for slot, name in enumerate(("demo-0", "demo-1"))
        }
        self.answers: dict[str, Load | None] = {}
        self.now = 0.0
        self.heard: list[tuple[str, int]] = []
        self.file = folder / ENGINES_FILE
        self.watch = LoadWatch(self.ask, self.members, folder, self.hear, lambda: self.now)

    async def ask(self, engine_id: str) -> Load | None:
        return self.answers.get(engine_id)

    def hear(self, member: Member, load: Load) -> None:
        self.heard.append((member.id, load.num_generated_tokens))

    async def look(self, **answers: Load | None) -> dict[str, float]:
        """The samples of `demo-0` after a round in which it answers so, `demo-1` as `other`."""
        self.answers = {"demo-0": answers.get("load"), "demo-1": answers.get("other")}
        await self.watch.look()
        return self.samples("demo-0")

    def samples(self, engine: str) -> dict[str, float]:
        families = text_string_to_metric_families(self.file.read_text())
        return {
            sample.name: sample.value
            for family in families
            for sample in family.samples
            if sample.labels == {"model": "demo", "engine": engine}
        }

    def status(self, **changes: object) -> None:
        self.members["demo-0"].status = Status(**{"state": State.READY, "detail": "", **changes})  # type: ignore[arg-type]


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


LOAD = Load(2, 1, 0.5, 3, 100, 40, 60, 20, 80, 30, ("a@1", "b@2"))


async def test_all_of_a_load_is_written_with_help_and_type(engines: Engines) -> None:
    samples = await engines.look(load=LOAD)
    assert samples == {
        "forgegate_engine_requests_running": 2,
        "forgegate_engine_requests_waiting": 1,
        "forgegate_engine_kv_usage_ratio": 0.5,
        "forgegate_engine_adapters_running": 2,
        "forgegate_engine_preemptions_total": 3,
        "forgegate_engine_prompt_tokens_total": 100,
        "forgegate_engine_cached_tokens_total": 40,
        "forgegate_engine_generated_tokens_total": 60,
        "forgegate_engine_drafts_total": 20,
        "forgegate_engine_draft_tokens_total": 80,
        "forgegate_engine_accepted_tokens_total": 30,
    }
    assert engines.samples("demo-1") == {}, "it gave no answer"
    page = engines.file.read_text()
    assert "# TYPE forgegate_engine_drafts_total counter\n" in page
    assert "# TYPE forgegate_engine_requests_running gauge\n" in page
    assert page.count("# HELP ") == 11
    assert "a@1" not in page, "a candidate's name is the admin's alone, and the page is open"
    assert engines.heard == [("demo-0", 60)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_vllm_counts_is_on_our_page(engines: Engines, version: str) -> None:
    load = load_of(metrics_page(version), table_of(version).metrics)
    samples = await engines.look(load=load)
    assert samples["forgegate_engine_prompt_tokens_total"] == load.num_prompt_tokens > 0
    assert samples["forgegate_engine_generated_tokens_total"] == load.num_generated_tokens > 0
    assert samples["forgegate_engine_kv_usage_ratio"] == load.kv_usage


async def test_counters_go_on_over_a_restart_and_never_fall(engines: Engines) -> None:
    await engines.look(load=Load(num_generated_tokens=100))
    assert (await engines.look(load=Load(num_generated_tokens=150)))["forgegate_engine_generated_tokens_total"] == 150
    engines.status(num_restarts=1)
    # More than it had: only the launch tells that it began anew.
    after = await engines.look(load=Load(num_generated_tokens=170))
    assert after["forgegate_engine_generated_tokens_total"] == 320
    fallen = await engines.look(load=Load(num_generated_tokens=10))
    assert fallen["forgegate_engine_generated_tokens_total"] == 330


async def test_an_engine_that_is_not_ready_vanishes_at_once_and_comes_back_with_its_counts(engines: Engines) -> None:
    await engines.look(load=LOAD, other=LOAD)
    engines.status(state=State.BACKOFF)
    assert await engines.look(other=LOAD) == {}
    assert engines.watch.last("demo-0") is None
    assert engines.samples("demo-1")["forgegate_engine_generated_tokens_total"] == 60
    engines.status(num_restarts=1)
    assert engines.watch.last("demo-0") is None, "what its last launch said is not what this one does"
    assert (await engines.look(load=Load(num_generated_tokens=1)))["forgegate_engine_generated_tokens_total"] == 61


async def test_an_engine_too_busy_to_answer_is_kept_for_a_while(engines: Engines) -> None:
    await engines.look(load=LOAD)
    engines.now = MAX_AGE_S
    assert (await engines.look(load=None))["forgegate_engine_requests_running"] == 2
    assert engines.watch.last("demo-0") == LOAD
    engines.now = MAX_AGE_S + 0.1
    assert await engines.look(load=None) == {}
    assert engines.watch.last("demo-0") is None


async def test_an_answer_of_the_launch_before_counts_for_nobody(engines: Engines) -> None:
    async def late(engine_id: str) -> Load:
        engines.status(num_restarts=1)
        return LOAD

    engines.watch._ask = late
    await engines.watch.look()
    assert engines.watch.last("demo-0") is None


async def test_a_disk_that_refuses_leaves_no_old_counts(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    await engines.look(load=LOAD)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    await engines.watch.look()
    assert not engines.file.exists()


async def test_one_engine_whose_answer_is_beyond_us_keeps_nobody_elses_back(
    engines: Engines, capsys: pytest.CaptureFixture[str]
) -> None:
    await engines.look(load=LOAD, other=LOAD)

    async def ask(engine_id: str) -> Load:
        if engine_id == "demo-0":
            raise RuntimeError("a bug")
        return Load(num_running=9)

    engines.watch._ask = ask
    await engines.watch.look()
    assert engines.samples("demo-1")["forgegate_engine_requests_running"] == 9
    assert "RuntimeError: a bug" in capsys.readouterr().err


async def test_the_task_goes_on_after_a_fault_and_ends_when_told(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gateway.control.loadwatch.INTERVAL_S", 0.001)
    num_asked = 0

    async def ask(engine_id: str) -> Load:
        nonlocal num_asked
        num_asked += 1
        if num_asked < 3:
            raise RuntimeError("a bug")
        return LOAD

    engines.watch._ask = ask
    engines.watch.start()
    async with asyncio.timeout(5):
        while engines.watch.last("demo-0") is None:
            await asyncio.sleep(0.001)
    await engines.watch.close()
    assert "RuntimeError: a bug" in capsys.readouterr().err
    seen = num_asked
    await asyncio.sleep(0.01)
    assert num_asked == seen


def test_every_count_of_a_load_is_tallied() -> None:
    counts = {name for name in Load.__dataclass_fields__ if name.startswith("num_")} - {"num_running", "num_waiting"}
    assert {series.field for series in COUNTERS} == counts == set(Tally().totals)
