from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backends.base import Tell
from backends.probe import Prober
from backends.process import Launcher
from backends.ties import Ties
from gateway.control.trial import Trials
from gateway.control.tuneload import MeasureFailed
from tests.backends.life_rig import StubBackend


class NoRoom:
    """A gate that lets nobody in."""

    async def enter(self, tell: Tell) -> str:
        return "no room: it lacks 4 GiB of CUDA0"

    def leave(self) -> None:
        return None


async def test_a_trial_that_the_gate_refuses_is_over(tmp_path: Path) -> None:
    launcher, prober = await Launcher.start(), Prober()
    trials = Trials(launcher, prober, tmp_path, lambda _: Ties(gate=NoRoom()))
    try:
        async with asyncio.timeout(5):
            with pytest.raises(MeasureFailed, match="did not start: no room: it lacks 4 GiB of CUDA0"):
                async with trials.engine("m-0", StubBackend(), lambda _: None):
                    pass
    finally:
        await prober.close()
        await launcher.close()
