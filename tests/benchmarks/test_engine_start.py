"""A start is told from its states, and `retry-after` from what was left."""

from __future__ import annotations

from typing import Any, cast

import pytest

from benchmarks import engine_start
from benchmarks.chaos_gateway import GatewayError
from benchmarks.engine_start import Start


class Gateway:
    """Shows one engine, in each of these states in turn."""

    def __init__(self, *states: tuple[str, str, int | None]) -> None:
        self._states = list(states)

    async def engines(self) -> list[dict[str, Any]]:
        state, detail, pid = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return [{"id": "demo-0", "state": state, "detail": detail, "pid": pid}]


async def watch(*states: tuple[str, str, int | None], timeout_s: float = 5.0) -> Start:
    return await engine_start.watch(cast(Any, Gateway(*states)), "demo-0", "demo", timeout_s, ask=False)


async def test_each_change_is_seen_once_until_it_is_ready() -> None:
    start = await watch(
        ("starting", "", None), ("starting", "", None), ("starting", "loading weights", 7), ("ready", "", 7)
    )
    assert [entry[1:] for entry in start.seen] == [("starting", ""), ("starting", "loading weights"), ("ready", "")]
    assert start.pid == 7
    assert start.ready_s is not None


async def test_a_failed_start_ends_the_watch() -> None:
    start = await watch(("starting", "", 7), ("failed", "no such flag", None))
    assert start.ready_s is None
    assert start.seen[-1][1:] == ("failed", "no such flag")


async def test_one_that_never_ends_is_an_error_with_its_last_words() -> None:
    with pytest.raises(GatewayError, match=r"demo-0 was not ready within 0\.2 s; it said: compiling"):
        await watch(("starting", "compiling", 7), timeout_s=0.2)


async def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(GatewayError, match="there is no engine demo-1"):
        await engine_start.engine_of(cast(Any, Gateway(("ready", "", 1))), "demo-1")


def test_retry_after_is_held_against_what_was_left() -> None:
    answers = [(0.0, 503, 12.0, "starting"), (4.0, 503, 5.0, "starting"), (8.0, 503, None, "x"), (11.0, 200, None, "")]
    start = Start(answers=answers, ready_s=10.0)
    assert start.retry_errors_s == [2.0, -1.0]
    assert start.as_dict()["retry_after_error_s"] == {"median": 0.5, "min": -1.0, "max": 2.0}
    assert Start(ready_s=1.0).as_dict()["retry_after_error_s"] is None
