import random
from collections import Counter

import pytest

from benchmarks.traffic.adapters import AdapterMix, parse_adapters
from benchmarks.traffic.errors import WorkloadError

NAMES = tuple("abcdefgh")


def shares(mix: AdapterMix, num: int = 40_000) -> dict[str | None, float]:
    drawn = mix.draws(num, random.Random(5))
    return {name: count / num for name, count in Counter(drawn).items()}


def test_zipf_is_the_true_one():
    found = shares(AdapterMix.zipf(NAMES, 1.0))
    harmonic = sum(1 / rank for rank in range(1, 9))
    for rank, name in enumerate(NAMES, start=1):
        assert found[name] == pytest.approx(1 / rank / harmonic, abs=0.01)


def test_exponent_0_is_uniform():
    assert all(share == pytest.approx(1 / 8, abs=0.01) for share in shares(AdapterMix.zipf(NAMES, 0)).values())


def test_weights_and_base_share():
    found = shares(AdapterMix(("a", "b"), (3, 1), base_share=0.2))
    assert found == {
        None: pytest.approx(0.2, abs=0.01),
        "a": pytest.approx(0.6, abs=0.01),
        "b": pytest.approx(0.2, abs=0.01),
    }


def test_a_cold_request_asks_for_what_was_asked_longest_ago():
    drawn = AdapterMix.zipf(NAMES, 1, cold_share=1.0).draws(16, random.Random(0))
    assert drawn == [*reversed(NAMES), *reversed(NAMES)]


def test_cold_share_is_on_top_of_what_is_popular():
    hot_only = AdapterMix(NAMES, (1, *[0] * 7))
    with_cold = AdapterMix(NAMES, (1, *[0] * 7), cold_share=0.25)
    assert shares(hot_only) == {"a": 1.0}
    assert 1 - shares(with_cold)["a"] == pytest.approx(0.25, abs=0.04)


def test_churn_makes_others_popular():
    mix = AdapterMix(NAMES, (1, *[0] * 7), churn_every=100)
    drawn = mix.draws(2000, random.Random(3))
    parts = [set(drawn[start : start + 100]) for start in range(0, 2000, 100)]
    assert all(len(part) == 1 for part in parts)
    assert parts[0] == {"a"}
    assert len(set.union(*parts)) > 4  # type: ignore[arg-type]


def test_a_share_does_not_shift_what_the_others_ask_for():
    plain = AdapterMix.zipf(NAMES, 1).draws(500, random.Random(9))
    mixed = AdapterMix.zipf(NAMES, 1, base_share=0.3).draws(500, random.Random(9))
    assert all(one == other for one, other in zip(plain, mixed, strict=True) if other is not None)
    assert None in mixed


def test_forms():
    assert parse_adapters("a, b") == (("a", "b"), None)
    assert parse_adapters("a=3,b=1.5") == (("a", "b"), (3.0, 1.5))


@pytest.mark.parametrize("text", ["", ",", "a=1,b", "=3", "a=x"])
def test_what_names_no_adapters(text: str):
    with pytest.raises(WorkloadError):
        parse_adapters(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": ()},
        {"names": ("a", "a")},
        {"weights": (1.0,)},
        {"weights": (0.0, 0.0)},
        {"weights": (-1.0, 2.0)},
        {"base_share": 1.5},
        {"cold_share": -0.1},
        {"churn_every": -1},
    ],
)
def test_impossible_mixes(wrong: dict[str, object]):
    with pytest.raises(WorkloadError):
        AdapterMix(**{"names": ("a", "b"), "weights": (1.0, 1.0), **wrong})  # type: ignore[arg-type]
