import random

from benchmarks.optimize import quality
from benchmarks.optimize.quality import NUM_PROMPTS, Reference, agreement_of, judge, prompts_of

PROMPTS = prompts_of()
RNG = random.Random(1)
ANSWERS = tuple(f"answer {number} of the defaults" for number in range(NUM_PROMPTS))
LOGPROBS = tuple(tuple(-RNG.random() for _ in range(20)) for _ in PROMPTS)
REFERENCE = Reference(PROMPTS, ANSWERS, LOGPROBS)


def changed(by: float, noise: float = 0.0) -> tuple[tuple[float, ...], ...]:
    rng = random.Random(2)
    return tuple(tuple(value + by + rng.gauss(0, noise) for value in one) for one in LOGPROBS)


def test_prompts_are_texts_and_always_the_same() -> None:
    assert prompts_of() == PROMPTS
    assert len(PROMPTS) == NUM_PROMPTS
    assert all(PROMPTS)
    assert REFERENCE.texts[0] == PROMPTS[0] + ANSWERS[0]


def test_the_same_scores_pass() -> None:
    found = judge(REFERENCE, ANSWERS, LOGPROBS)
    assert (found.agreement, found.change, found.why_not) == (1.0, 0.0, "")


def test_rounding_passes_and_a_loss_does_not() -> None:
    assert not judge(REFERENCE, ANSWERS, changed(0.0, 0.01)).why_not
    assert not judge(REFERENCE, ANSWERS, changed(+0.1)).why_not
    found = judge(REFERENCE, ANSWERS, changed(-0.05, 0.01))
    assert "on average (margin 0.02)" in found.why_not
    assert not judge(REFERENCE, ANSWERS, changed(-0.05, 0.01), margin=0.1).why_not


def test_a_loss_that_cannot_be_excluded_does_not_pass() -> None:
    shifts = [random.Random(number).gauss(0, 0.5) for number in range(NUM_PROMPTS)]
    wild = [[value + shift for value in one] for one, shift in zip(LOGPROBS, shifts, strict=True)]
    assert "may lose" in judge(REFERENCE, ANSWERS, wild).why_not


def test_answers_that_part_at_once_do_not_pass_whatever_the_scores() -> None:
    found = judge(REFERENCE, ["!!!"] * NUM_PROMPTS, LOGPROBS)
    assert "share 0% of their text" in found.why_not


def test_a_close_choice_may_go_the_other_way() -> None:
    few = [answer if number % 6 else "other" for number, answer in enumerate(ANSWERS)]
    assert not judge(REFERENCE, few, LOGPROBS).why_not


def test_without_scores_answers_are_held_to_more() -> None:
    unscored = Reference(PROMPTS, ANSWERS, None)
    few = [answer if number % 6 else "other" for number, answer in enumerate(ANSWERS)]
    assert not judge(unscored, ANSWERS, None).why_not
    assert "at least 90%" in judge(unscored, few, None).why_not


def test_a_setting_that_does_not_score_or_reads_other_tokens_is_out() -> None:
    assert "does not score" in judge(REFERENCE, ANSWERS, None).why_not
    assert "other tokens" in judge(REFERENCE, ANSWERS, [one[:-1] for one in LOGPROBS]).why_not


def test_agreement_is_what_both_begin_with() -> None:
    assert agreement_of(["abcd", ""], ["abxx", ""]) == 0.75
    assert agreement_of(["ab"], ["abcd"]) == 0.5
    assert quality.LEAST_AGREEMENT < quality.LEAST_UNSCORED
