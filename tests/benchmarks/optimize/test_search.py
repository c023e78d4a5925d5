import pytest

from benchmarks.optimize import search
from benchmarks.optimize.search import EFFORTS, FULL, Cost, OutOfBudget, Strategy
from benchmarks.optimize.settings import Setting
from benchmarks.optimize.trial import Outcome, Probe, Trial

COST = Cost(launch_s=5.0, probing_s=40.0)
SETTINGS = [Setting.of({"n": number}) for number in range(20)]


def trial(setting: Setting, effort: int, score: float, outcome: Outcome = Outcome.MEASURED) -> Trial:
    probe = Probe(1, score, 0.0, None, 1, 0, {}, {}, 1.0, "" if score else "too slow")
    return Trial("search", setting, effort, outcome, probes=(probe,))


class World:
    """Scores by number; the seconds of all trials are counted."""

    def __init__(self, left_s: float = float("inf")) -> None:
        self.asked: list[tuple[int, int]] = []
        self.left_s = left_s

    async def measure(self, setting: Setting, effort: int) -> Trial:
        if (cost := COST.of(effort)) > self.left_s:
            raise OutOfBudget
        self.left_s -= cost
        number = setting.options["n"]
        self.asked.append((number, effort))
        return trial(setting, effort, float(number))


async def test_halving_looks_twice_as_long_at_the_better_half() -> None:
    world = World()
    found = await search.run(Strategy.HALVING, SETTINGS[:8], world.measure, 1e9, COST)
    assert world.asked == [
        *((number, 1) for number in range(8)),
        *((number, 2) for number in (7, 6, 5, 4)),
        *((number, 4) for number in (7, 6)),
    ]
    best = search.winner(found)
    assert best is not None
    assert (best.setting.options, best.effort) == ({"n": 7}, FULL)


@pytest.mark.parametrize("left_s", [100.0, 300.0, 1000.0])
async def test_halving_takes_as_many_settings_as_come_to_the_end_in_time(left_s: float) -> None:
    world = World(left_s)
    found = await search.run(Strategy.HALVING, SETTINGS, world.measure, left_s, COST)
    assert found[-1].effort == FULL
    num = sum(effort == EFFORTS[0] for _, effort in world.asked)
    assert num == search.num_affordable(len(SETTINGS), left_s, COST) > 1


async def test_random_and_grid_measure_each_setting_once_at_full_length_until_the_time_is_over() -> None:
    world = World(100.0)
    found = await search.run(Strategy.RANDOM, SETTINGS, world.measure, 100.0, COST)
    assert [(each.setting.options["n"], each.effort) for each in found] == [(0, FULL), (1, FULL)]


async def test_what_was_measured_before_the_time_was_over_counts() -> None:
    world = World(200.0)
    found = await search.run(Strategy.HALVING, SETTINGS[:8], world.measure, 1e9, COST)
    assert [each.effort for each in found] == [1] * 8 + [2] * 3
    best = search.winner(found)
    assert best is not None
    assert best.setting.options == {"n": 7}


def test_the_order_is_of_the_lists_or_by_the_seed() -> None:
    assert search.candidates(Strategy.GRID, SETTINGS, 1) == SETTINGS
    drawn = search.candidates(Strategy.RANDOM, SETTINGS, 1)
    assert drawn != SETTINGS
    assert sorted(drawn, key=SETTINGS.index) == SETTINGS
    assert drawn == search.candidates(Strategy.HALVING, SETTINGS, 1)
    assert drawn != search.candidates(Strategy.HALVING, SETTINGS, 2)


def test_what_came_to_nothing_goes_no_further_and_does_not_win() -> None:
    trials = [
        trial(SETTINGS[0], 1, 9.0, Outcome.WORSE),
        trial(SETTINGS[1], 1, 0.0),
        trial(SETTINGS[2], 1, 1.0),
        trial(SETTINGS[3], 1, 0.0, Outcome.NO_START),
    ]
    assert search.better_half(trials) == [SETTINGS[2]]
    assert search.winner(trials) == trials[2]
    assert search.winner(trials[:2]) is None


def test_a_longer_look_counts_before_a_better_figure() -> None:
    trials = [trial(SETTINGS[0], 1, 9.0), trial(SETTINGS[1], 2, 5.0), trial(SETTINGS[2], 2, 6.0)]
    assert search.winner(trials) == trials[2]


def test_less_than_one_setting_is_affordable() -> None:
    assert search.num_affordable(20, 10.0, COST) == 0
    assert search.num_affordable(3, 1e9, COST) == 3
    assert search.shortest_s(Strategy.GRID, COST) == 45.0
