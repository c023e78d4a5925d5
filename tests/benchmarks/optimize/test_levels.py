import math
from collections.abc import Callable

import pytest

from benchmarks.loads import ClosedLoad, OpenLoad
from benchmarks.optimize.levels import CLOSE, Axis, Concurrency, Rate, climb


async def climbed(
    axis: Axis, start: float, goodput: Callable[[float], float | None]
) -> tuple[float | None, list[float]]:
    asked: list[float] = []

    async def carried(load: float) -> float | None:
        asked.append(load)
        return goodput(load)

    return await climb(axis, start, carried), asked


@pytest.mark.parametrize("start", [1, 8, 100, 256])
@pytest.mark.parametrize("most", [1, 2, 3, 7, 20, 100, 255])
async def test_the_highest_load_that_holds_is_found_from_anywhere(start: int, most: int) -> None:
    found, asked = await climbed(Concurrency(256), start, lambda load: load if load <= most else None)
    assert found is not None
    assert found <= most < found * CLOSE + 1
    assert len(asked) == len(set(asked)) <= 14


@pytest.mark.parametrize("most", [0.05, 0.9, 1.1, 17.3, 900])
async def test_rates_are_found_too(most: float) -> None:
    found, _ = await climbed(Rate(), 1.0, lambda load: load if load <= most else None)
    assert found is not None
    assert found <= most <= found * CLOSE


async def test_nothing_holds() -> None:
    found, asked = await climbed(Concurrency(), 8, lambda _: None)
    assert (found, asked) == (None, [8, 4, 2, 1])


async def test_past_the_knee_more_load_is_not_tried() -> None:
    found, asked = await climbed(Concurrency(), 2, lambda load: min(load, 16))
    assert (found, asked) == (32, [2, 4, 8, 16, 32])


async def test_the_highest_load_is_the_end() -> None:
    found, asked = await climbed(Concurrency(24), 8, lambda load: load)
    assert (found, asked) == (24, [8, 16, 24])


def test_a_higher_effort_sends_more() -> None:
    short, long = (Concurrency().load(16, effort, 8, 1.0) for effort in (1, 4))
    assert isinstance(short, ClosedLoad)
    assert isinstance(long, ClosedLoad)
    assert (short.concurrency, short.num_requests, long.num_requests) == (16, 32, 128)


def test_an_open_loop_lasts_several_answers() -> None:
    load = Rate().load(4.0, 1, 8, 3.0)
    assert isinstance(load, OpenLoad)
    assert load.num_requests == math.ceil(24 * 4)
