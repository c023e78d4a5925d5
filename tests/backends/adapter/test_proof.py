"""Verdicts on made-up scores, where the truth is known exactly."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.adapter.golden import Golden
from backends.adapter.proof import ANY_OTHER, MISS, NO_ADAPTER, Verdict, judge, looks
from backends.adapter.proof_case import ProofError
from backends.adapter.proof_estimate import ratio_over_texts, student_quantile
from tests.backends.adapter.synthetic import added, as_served, made_golden

GOLDEN = made_golden()


def verdict_on(row: list[float], golden: Golden = GOLDEN, noise: float = 0.02, **siblings: Golden) -> Verdict:
    return judge(golden, as_served(golden, golden.base, noise, 1), as_served(golden, row, noise, 2), siblings)


def change(golden: Golden) -> list[float]:
    return added(golden.adapter, golden.base, -1.0)


def test_an_exact_adapter_is_proven() -> None:
    verdict = verdict_on(list(GOLDEN.adapter), noise=0.0)
    assert (verdict.state, verdict.reason, verdict.is_final) == ("proven", "", True)
    assert verdict.projection == pytest.approx(1.0)
    assert verdict.unexplained == pytest.approx(0.0, abs=1e-9)
    assert verdict.num_tokens == len(GOLDEN.base)
    assert {decoy.name for decoy in verdict.decoys} == {NO_ADAPTER, *GOLDEN.decoys}
    assert all(decoy.outcome == "rejected" and abs(decoy.nearness) < 1e-9 for decoy in verdict.decoys)


def test_the_base_s_quantisation_cancels() -> None:
    shifted = [value + 0.5 * math.sin(place) for place, value in enumerate(GOLDEN.base)]
    base, served = as_served(GOLDEN, shifted), as_served(GOLDEN, added(shifted, change(GOLDEN)))
    verdict = judge(GOLDEN, base, served)
    assert verdict.state == "proven"
    assert verdict.base_error == pytest.approx(0.5 / math.sqrt(2), rel=0.05)
    assert verdict.unexplained == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", GOLDEN.decoys)
def test_a_decoy_that_is_served_fails_and_is_named(name: str) -> None:
    verdict = verdict_on(list(GOLDEN.decoys[name]))
    assert verdict.state == "failed"
    assert verdict.reason == f"the engine serves it with {name}"
    near = next(decoy for decoy in verdict.decoys if decoy.name == name)
    assert near.outcome == "fits"
    assert near.nearness == pytest.approx(1.0, abs=0.05)


def test_the_base_model_served_is_named() -> None:
    assert verdict_on(list(GOLDEN.base)).reason == "the engine serves the base model, without the adapter"


def test_another_adapter_fails_and_is_named_where_it_is_known() -> None:
    other = made_golden(5)
    row = added(GOLDEN.base, change(other))
    unknown = verdict_on(row)
    assert unknown.state == "failed"
    assert "something else" in unknown.reason
    sibling = replace(other, base=GOLDEN.base, adapter=row)
    assert verdict_on(row, **{"x@1": sibling}).reason == "the engine serves x@1 instead"


def test_an_adapter_with_something_on_top_fails_though_no_decoy_explains_it() -> None:
    verdict = verdict_on(added(GOLDEN.adapter, change(made_golden(6)), 0.4))
    assert verdict.state == "failed"
    assert "something else" in verdict.reason


@pytest.mark.parametrize("factor", [0.7, 1.35])
def test_a_scale_between_the_decoys_fails(factor: float) -> None:
    assert verdict_on(added(GOLDEN.base, change(GOLDEN), factor)).state == "failed"


def test_noise_makes_a_proof_weak_and_never_failed() -> None:
    golden = made_golden(effect=0.02)
    verdict = verdict_on(list(golden.adapter), golden, noise=0.3)
    assert verdict.state == "weak"
    assert "layer 0 missing" in verdict.weak_against
    assert "layer 0 missing" in verdict.reason
    assert ANY_OTHER in verdict.reason


def test_a_sibling_nearer_than_the_noise_is_indistinguishable() -> None:
    twin = replace(
        GOLDEN,
        adapter=added(GOLDEN.adapter, [1e-4 * (-1) ** n for n in range(len(GOLDEN.base))]),
        adapter_digest="b" * 64,
    )
    verdict = verdict_on(list(GOLDEN.adapter), **{"twin@1": twin, "same@1": GOLDEN})
    assert verdict.state == "indistinguishable"
    assert set(verdict.indistinguishable_from) == {"twin@1", "same@1"}


def test_siblings_of_another_base_or_probe_set_are_left_out() -> None:
    others = {
        "a@1": replace(GOLDEN, base_digest="sha256:" + "c" * 64),
        "b@1": replace(GOLDEN, probe_id="sha256:" + "d" * 64),
    }
    verdict = verdict_on(list(GOLDEN.adapter), **others)
    assert (verdict.state, verdict.siblings) == ("proven", ())


def test_an_adapter_that_changes_nothing_cannot_be_told_from_the_base() -> None:
    idle = replace(GOLDEN, adapter=list(GOLDEN.base), decoys={"scale x2": list(GOLDEN.base)})
    verdict = verdict_on(list(idle.base), idle)
    assert verdict.state == "weak"
    assert NO_ADAPTER in verdict.weak_against
    assert verdict.projection == 0.0
    served = verdict_on(list(GOLDEN.adapter), idle)
    assert served.state == "failed"
    assert "changes nothing" in served.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails(value: float) -> None:
    served = as_served(GOLDEN, GOLDEN.adapter)
    served[3][-1] = value
    verdict = judge(GOLDEN, as_served(GOLDEN, GOLDEN.base), served)
    assert verdict.state == "failed"
    assert "no finite number" in verdict.reason
    assert verdict.is_final


def test_scores_of_another_shape_are_refused() -> None:
    base, served = as_served(GOLDEN, GOLDEN.base), as_served(GOLDEN, GOLDEN.adapter)
    with pytest.raises(ProofError, match="scores of 42 texts by the adapter and of 41 by the base"):
        judge(GOLDEN, base[:-1], served)
    with pytest.raises(ProofError, match="scores of 0 texts"):
        judge(GOLDEN, base, [])
    with pytest.raises(ProofError, match="text 2 has 26 tokens, the adapter gave 24 scores instead of 25"):
        judge(GOLDEN, base, [*served[:2], served[2][:-1], *served[3:]])


def test_looks_are_at_shares_of_the_tokens_and_end_with_all() -> None:
    assert looks(GOLDEN) == (6, 11, 21, 42)
    assert looks(replace(GOLDEN, texts=GOLDEN.texts[:1])) == (1,)


def test_only_a_proof_ends_early() -> None:
    base, served = as_served(GOLDEN, GOLDEN.base), as_served(GOLDEN, GOLDEN.adapter)
    early = looks(GOLDEN)[1]
    assert judge(GOLDEN, base[:early], served[:early]).is_final
    wrong = as_served(GOLDEN, GOLDEN.base)
    assert not judge(GOLDEN, base[:early], wrong[:early]).is_final
    assert judge(GOLDEN, base, wrong).is_final


def test_more_scores_of_the_base_than_are_needed_do_no_harm() -> None:
    served = as_served(GOLDEN, GOLDEN.adapter)
    assert judge(GOLDEN, as_served(GOLDEN, GOLDEN.base), served[:21]).num_texts == 21


def heavy(draw: Random, size: int, spread: float) -> list[float]:
    """Noise with rare large values."""
    return [draw.gauss(0, spread) * (8.0 if draw.random() < 0.02 else 1.0) for _ in range(size)]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, 0.2, 1.0])
def test_error_rates_hold_over_all_looks_whatever_the_noise(noise: float) -> None:
    """Where the noise is large, proofs become weak; wrong verdicts stay rare."""
    draw, missed, alarms = Random(f"rates {noise}"), 0, 0
    golden = made_golden(num_layers=2, effect=0.5)
    size = len(golden.base)
    for _ in range(120):
        base = as_served(golden, added(golden.base, heavy(draw, size, noise)))
        fault = draw.choice([golden.base, *golden.decoys.values()])
        broken, sound = (as_served(golden, added(row, heavy(draw, size, noise))) for row in (fault, golden.adapter))
        missed += any(judge(golden, base, broken[:count]).state == "proven" for count in looks(golden))
        alarms += judge(golden, base, sound).state == "failed"
    assert missed <= max(1, 5 * 120 * MISS)
    assert alarms <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.3), st.sampled_from([0.3, 1.0, 3.0]))
def test_a_sound_adapter_is_never_failed_and_a_missing_one_never_proven(seed: int, noise: float, effect: float) -> None:
    golden = made_golden(seed, 3, effect)
    base = as_served(golden, golden.base, noise, seed + 1)
    assert judge(golden, base, as_served(golden, golden.adapter, noise, seed + 2)).state != "failed"
    absent = judge(golden, base, as_served(golden, golden.base, noise, seed + 2))
    assert absent.state in ("failed", "weak")


def test_a_verdict_takes_milliseconds() -> None:
    golden = made_golden(num_layers=8)
    base, served = as_served(golden, golden.base), as_served(golden, golden.adapter)
    best = min(_seconds(golden, base, served) for _ in range(5))
    assert best < 0.05  # 1,000 tokens and 12 decoys take 4 ms on an idle core


def _seconds(golden: Golden, base: list[list[float]], served: list[list[float]]) -> float:
    began = time.process_time()
    judge(golden, base, served)
    return time.process_time() - began


def test_student_s_quantiles_are_those_of_the_tables() -> None:
    table = {
        (0.05, 1): 6.314,
        (0.025, 2): 4.303,
        (0.001, 5): 5.893,
        (0.0005, 30): 3.646,
        (0.001, 100): 3.174,
        (0.001, 10**6): 3.090,
    }
    for (tail, degrees), value in table.items():
        assert student_quantile(tail, degrees) == pytest.approx(value, abs=1e-3)


def test_the_error_of_a_ratio_is_that_of_leaving_texts_out() -> None:
    numerators, denominators = [1.0, 2.5, 0.5, 4.0], [2.0, 3.0, 1.0, 5.0]
    found = ratio_over_texts(numerators, denominators)
    assert found is not None
    left = [(8.0 - n) / (11.0 - d) for n, d in zip(numerators, denominators, strict=True)]
    jackknife = math.sqrt(3 / 4 * sum((value - found.value) ** 2 for value in left))
    assert (found.value, found.error) == pytest.approx((8 / 11, jackknife))
    assert found.num_effective == pytest.approx(121 / 39)


def test_one_text_that_outweighs_all_others_proves_nothing() -> None:
    found = ratio_over_texts([0.0, 0.0], [3.0, 0.0])
    assert found is not None
    assert found.margin(0.001) == math.inf
    assert ratio_over_texts([0.0], [0.0]) is None
