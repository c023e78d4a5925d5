"""A version turns bad under traffic: the real data plane counts, the real owner of aliases goes back. Engines are stubs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from gateway import snapshot as wire
from gateway.control.desired import Watch
from gateway.control.watching import Watching
from tests.gateway.control.adapter_rig import Rig as Control
from tests.gateway.control.adapter_rig import rig as control
from tests.gateway.data.rig import Call, Rig, StubEngine

pytestmark = pytest.mark.slow
WATCH = Watch(0.05, 3.0, 40, 60.0, "ann", 1.0)


class Engine(StubEngine):
    """Answers 500 to whoever asks for a version in `bad`; takes `slow_s` for one in `slow`."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.bad: set[str] = set()
        self.slow: set[str] = set()

    async def answer(self, call: Call) -> None:
        model = str(call.json()["model"])
        if model in self.slow:
            await asyncio.sleep(0.05)
        if model in self.bad:
            await call.send_json(500, {"error": {"message": "no"}})
        else:
            await call.send_json(200, {"model": model})


class Gateway:
    """Both planes; what one pushes the other decides from."""

    def __init__(self, made: Control, data: Rig) -> None:
        self.made, self.data = made, data
        self.said: list[str] = []
        self.watching = Watching(made.adapters, self.said.append)
        made.on_push = self.push

    def push(self, pushed: wire.Snapshot) -> None:
        self.data.adapters = {
            adapter.name: msgspec.structs.replace(adapter, model="m", engines=("m-0",) if adapter.engines else ())
            for adapter in pushed.adapters
        }
        self.data.aliases = tuple(msgspec.structs.replace(alias, model="m") for alias in pushed.aliases)
        self.data.push()

    async def ask(self, num: int) -> Counter[int]:
        """Eight at a time; the worker reports and control looks meanwhile."""
        found: Counter[int] = Counter()
        left = iter(range(num))

        async def user(client: object) -> None:
            for _ in left:
                reply = await client.post("/v1/chat/completions", json={"model": "support"})  # type: ignore[attr-defined]
                found[reply.status_code] += 1

        async with self.data.client() as client:
            users = [asyncio.create_task(user(client)) for _ in range(8)]
            while not all(task.done() for task in users):
                await self.report()
                await asyncio.sleep(0.01)
            await asyncio.gather(*users)
        await self.report()
        return found

    async def report(self) -> None:
        self.data.relay.flush()
        self.data.relay.tick()
        told = [report for report in self.data.reports if isinstance(report, wire.Tallies)]
        self.data.reports.clear()
        for tallies in told:
            self.watching.tallied(tallies.rows)
        await self.watching.look()

    def serves(self) -> str:
        (alias,) = self.made.adapters.aliases()
        return alias.shares[0].adapter


@asynccontextmanager
async def gateway(home: Path, engine: Engine) -> AsyncIterator[Gateway]:
    data = Rig()
    await data.start(engine)
    try:
        async with control(home, (4,)) as made:
            yield Gateway(made, data)
    finally:
        await data.stop()


@pytest.mark.parametrize("fault", ["bad", "slow"])
async def test_it_goes_back_under_traffic_and_no_request_is_cut(tmp_path: Path, fault: str) -> None:
    engine = Engine()
    async with gateway(tmp_path, engine) as both:
        a, b = await both.made.add("a"), await both.made.add("b")
        await both.made.flip("support", a)
        await both.made.adapters.watch("support", WATCH)
        getattr(engine, fault).add(b)
        assert await both.ask(200) == {200: 200}
        await both.made.flip("support", b)
        answered = await both.ask(400)
        assert both.serves() == a
        change = both.made.adapters.history("support")[0]
        assert (change.kind, change.shares) == ("auto-rollback", (wire.Share(a),))
        assert ("errors: " if fault == "bad" else "median time to first byte: ") in change.reason
        assert answered.total() == 400
        assert answered[500] == (400 - answered[200] if fault == "bad" else 0)
        assert answered[500] < 200  # most were answered by what it went back to
        assert await both.ask(100) == {200: 100}


async def test_a_healthy_one_is_left_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path, Engine()) as both:
        a, b = await both.made.add("a"), await both.made.add("b")
        await both.made.flip("support", a)
        await both.made.adapters.watch("support", WATCH)
        await both.ask(200)
        await both.made.flip("support", b)
        assert await both.ask(400) == {200: 400}
        assert (both.serves(), both.said) == (b, [])


async def test_started_again_in_between_control_still_goes_back(tmp_path: Path) -> None:
    engine = Engine()
    async with gateway(tmp_path, engine) as both:
        a, b = await both.made.add("a"), await both.made.add("b")
        await both.made.flip("support", a)
        await both.made.adapters.watch("support", WATCH)
        await both.made.flip("support", b)
    async with gateway(tmp_path, engine) as both:
        assert both.serves() == b
        both.watching.start()
        engine.bad.add(b)
        await both.made.push()
        await both.ask(200)
        assert both.serves() == a
        await both.watching.close()
