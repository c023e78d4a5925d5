"""Any commands in any order, engines that die and come back at any time: what must hold, holds after each step."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway import errors
from gateway import snapshot as wire
from tests.gateway.control.adapter_rig import FakeEngine, Rig, rig

LABELS = "abcdef"
ALIASES = ("one", "two")
SLOTS = (2, 3)
versions, names, engines = st.sampled_from(LABELS), st.sampled_from(ALIASES), st.integers(0, len(SLOTS) - 1)


class AdapterStates(RuleBasedStateMachine):
    """One loop for all steps: what was begun in one goes on in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bugs: list[BaseException | None] = []
        self.patch = mock.patch("traceback.print_exc", self.note_bug)
        self.patch.start()
        self.home = tempfile.TemporaryDirectory()
        self.context: Any = rig(Path(self.home.name), SLOTS)
        self.made: Rig = self.run(self.context.__aenter__())
        self.names: dict[str, str] = {}
        self.served: set[str] = set()
        self.lost: set[tuple[str, int, str]] = set()
        self.wants: list[asyncio.Task[wire.Adapter]] = []
        self.commands: list[asyncio.Task[None]] = []
        for label in LABELS:
            self.names[label] = self.run(self.made.add(label))
        self.made.on_push = self.check

    def note_bug(self) -> None:
        self.bugs.append(sys.exc_info()[1])

    def teardown(self) -> None:
        try:
            self.run(self.end())
        finally:
            self.patch.stop()
            self.run(self.context.__aexit__(None, None, None))
            self.loop.close()
            self.home.cleanup()

    async def end(self) -> None:
        """Every want and every command ends, whatever state the engines were left in."""
        for engine in self.made.engines.values():
            engine.gate.set()
        await asyncio.gather(*self.wants, *self.commands)
        async with asyncio.timeout(5):
            while self.made.adapters._residents.tasks:
                await asyncio.sleep(0.001)
        assert not self.bugs

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def soon(self, work: Any) -> None:
        async def guarded() -> None:
            with suppress(errors.GatewayError):
                await work

        self.commands.append(self.loop.create_task(guarded()))
        self.run(asyncio.wait({self.commands[-1]}, timeout=0.02))

    def engine(self, index: int) -> FakeEngine:
        return self.made.engines[f"demo-{index}"]

    @rule(label=versions)
    def want(self, label: str) -> None:
        if len([task for task in self.wants if not task.done()]) < 4 and self.names[label] in self.known():
            self.wants.append(self.loop.create_task(self.made.want(self.names[label])))
            self.soon(asyncio.sleep(0.002))

    @rule(name=names, labels=st.lists(versions, min_size=1, max_size=3, unique=True))
    def point(self, name: str, labels: list[str]) -> None:
        self.soon(self.made.flip(name, *(self.names[label] for label in labels)))

    @rule(name=names)
    def rollback(self, name: str) -> None:
        self.soon(self.made.adapters.rollback(name, "ann"))

    @rule(label=versions, is_pinned=st.booleans())
    def pin(self, label: str, is_pinned: bool) -> None:
        command = self.made.adapters.pin if is_pinned else self.made.adapters.unpin
        self.soon(command(self.names[label]))

    @rule(label=versions)
    def unload(self, label: str) -> None:
        self.soon(self.made.adapters.unload(self.names[label]))

    @rule(index=engines)
    def die(self, index: int) -> None:
        self.run(self.made.down(f"demo-{index}"))

    @rule(index=engines)
    def restart(self, index: int) -> None:
        self.run(self.made.down(f"demo-{index}"))
        self.engine(index).restart()
        self.soon(self.made.up(f"demo-{index}"))

    @rule(index=engines, label=versions, instead=st.sampled_from(["", "a", "b", None]))
    def serve_wrongly(self, index: int, label: str, instead: str | None) -> None:
        """From the next load on; None: rightly again."""
        if instead is None or instead == label:
            self.engine(index).serves.pop(label, None)
        else:
            self.engine(index).serves[label] = instead

    @rule(index=engines, is_slow=st.booleans())
    def slow_loads(self, index: int, is_slow: bool) -> None:
        gate = self.engine(index).gate
        gate.clear() if is_slow else gate.set()

    @rule(index=engines, label=versions, num=st.integers(0, 2))
    def requests(self, index: int, label: str, num: int) -> None:
        self.engine(index).running[self.names[label]] = num

    @rule(index=engines)
    def lose_one(self, index: int) -> None:
        """An engine forgets an adapter by itself, and a worker says so."""
        engine = self.engine(index)
        held = engine.held
        if held:
            name = next(iter(held))
            del held[name]
            self.lost.add((engine.id, engine.launch, name))
        self.run(self.tell_trouble(engine.id))

    async def tell_trouble(self, engine_id: str) -> None:
        self.made.adapters.trouble(wire.EngineTrouble(engine_id, errors.AdapterAbsent.code))
        await asyncio.sleep(0.005)

    @invariant()
    def the_newest_snapshot_is_sound(self) -> None:
        self.check(self.made.pushed[-1])

    @invariant()
    def the_store_has_what_is_in_memory(self) -> None:
        self.run(self.compare_with_store())

    async def compare_with_store(self) -> None:
        adapters = self.made.adapters
        async with adapters._writing:
            assert await adapters._store.load() == adapters._desired

    def known(self) -> set[str]:
        return {version.name for version in self.made.adapters.versions()}

    def check(self, snapshot: wire.Snapshot) -> None:
        """Called at every push, too."""
        known = {adapter.name for adapter in snapshot.adapters}
        for loads in self.made.adapters._residents.loads.values():
            assert len(loads.held) <= loads.num_slots
        for adapter in snapshot.adapters:
            for engine_id in adapter.engines:
                self.require_served(adapter.name, self.made.engines[engine_id])
            assert not (adapter.engines and adapter.refusal)
        now = {alias.name for alias in snapshot.aliases}
        assert now >= self.served, "an alias that resolved does not any more"
        self.served = now
        assert all(share.adapter in known for alias in snapshot.aliases for share in alias.shares)

    def require_served(self, name: str, engine: FakeEngine) -> None:
        """Only what its proof could be held against since the engine's last launch is named."""
        assert engine.is_alive
        assert engine.id in self.made.adapters._residents.loads
        if (engine.id, engine.launch, name) not in self.lost:
            assert self.names.get(engine.held[name]) == name


AdapterStates.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestAdapterStates = AdapterStates.TestCase
