"""One round at a time for each engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.control.equip import Reconciler
from gateway.control.loads import Loads
from tests.gateway.control.adapter_rig import rig


async def test_an_alias_that_moves_in_an_engines_first_round_begins_none_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = num_rounds = 0
    bring_all = Reconciler._bring_all

    async def counted(self: Reconciler, loads: Loads) -> float | None:
        nonlocal now, most, num_rounds
        now, num_rounds = now + 1, num_rounds + 1
        most = max(most, now)
        try:
            return await bring_all(self, loads)
        finally:
            now -= 1

    async with rig(tmp_path) as made:
        await made.flip("support", await made.add("a"))
        await made.down("demo-0")
        engine = made.engines["demo-0"]
        engine.restart()
        engine.gate.clear()
        monkeypatch.setattr(Reconciler, "_bring_all", counted)
        coming = asyncio.create_task(made.up("demo-0"))
        await asyncio.sleep(0.01)
        made.adapters._residents.reconcile("demo")
        await asyncio.sleep(0.01)
        engine.gate.set()
        await coming
        async with asyncio.timeout(5):
            while made.adapters._residents.tasks:
                await asyncio.sleep(0.001)
        assert (most, num_rounds) == (1, 2)
