"""The checks on made-up evidence: each passes what is right and fails what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from finetune.parity.cases import Case
from finetune.parity.causes import ITSELF, NO_ADAPTER, Cause, found, of_ids, of_scores
from finetune.parity.checks import (
    Check,
    Scores,
    check_ends,
    check_greedy,
    check_ids,
    check_lengths,
    check_scores,
    left_over,
    parting,
    slope_of,
)
from finetune.parity.reference import Greedy, Rows
from finetune.parity.served import Answer
from finetune.parity.tolerance import NAMES, TOLERANCES, by_base_error, named

BOS = 1
CASES = tuple(Case(number, (), tuple(range(10, 30)), 14, False) for number in range(1, 9))
NEAR = named("Q8_0")
RANDOM = np.random.default_rng(3)


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(ord("a") + token % 26) for token in ids)


def rows(sigma: float, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(0, sigma, (len(CASES), 19))


BASE = rows(1, 1) - 4
CHANGE = rows(1.5, 2)


def scores(served_change: np.ndarray, noise: float = 0.02, base_noise: float = 0.02) -> Scores:  # type: ignore[type-arg]
    served_base = BASE + rows(base_noise, 3)
    served = served_base + served_change + rows(noise, 4)
    return Scores(*map(_plain, (BASE, BASE + CHANGE, served)), _plain(served_base))


def _plain(values: np.ndarray) -> Rows:  # type: ignore[type-arg]
    return tuple(tuple(map(float, row)) for row in values)


def answer(text: str, has_ended: bool = True, is_plain: bool = True, count: int | None = 14) -> Answer:
    return Answer(text, has_ended, is_plain, count)


def test_ids_are_equal_or_the_first_difference_is_shown_as_text() -> None:
    right = [case.prompt for case in CASES]
    assert check_ids(CASES, right, decode).state == "pass"
    wrong = [*right[:3], (*CASES[3].prompt[:5], 99, *CASES[3].prompt[5:]), *right[4:]]
    check = check_ids(CASES, wrong, decode)
    assert (check.state, check.rows) == ("fail", (4,))
    assert f"row 4 at token 5: after '{decode(range(10, 15))}' training has '{decode(range(15, 23))}'" in check.words
    assert f"the endpoint '{decode([99, *range(15, 22)])}'" in check.words


@pytest.mark.parametrize(
    ("made", "name", "words"),
    [
        (lambda ids: (BOS, *ids), "bos", "puts a beginning-of-sequence token before prompts"),
        (lambda ids: (10, *ids), "template", "another chat template"),
        (lambda ids: ids[:-1], "template", "another chat template"),
    ],
)
def test_a_beginning_too_many_is_told_from_another_template(made, name: str, words: str) -> None:  # type: ignore[no-untyped-def]
    cause = of_ids(CASES, [made(case.prompt) for case in CASES], BOS)
    assert cause.name == name
    assert words in cause.words


def test_a_doubled_and_a_missing_beginning() -> None:
    begun = [replace(case, ids=(BOS, *case.ids), first=case.first + 1) for case in CASES]
    doubled = of_ids(begun, [(BOS, *case.prompt) for case in begun], BOS)
    assert (doubled.name, "is there twice" in doubled.words) == ("bos", True)
    missing = of_ids(begun, [case.prompt[1:] for case in begun], BOS)
    assert (missing.name, "is missing" in missing.words) == ("bos", True)
    assert of_ids(begun, [case.prompt[1:] for case in begun], None).name == "template"


def test_where_nothing_is_rendered_prompt_tokens_are_counted() -> None:
    assert check_lengths(CASES, [answer("")] * 8).state == "pass"
    check = check_lengths(CASES, [*[answer("")] * 7, answer("", count=15)])
    assert (check.state, check.rows) == ("fail", (8,))
    assert check_lengths(CASES, [answer("", count=None)] * 8).state == "skipped"


@pytest.mark.parametrize("factor", [1.0, 0.0, 0.5, 2.0, 8**0.5])
def test_scores_pass_at_their_own_scale_only(factor: float) -> None:
    found_scores = scores(CHANGE * factor)
    check = check_scores(CASES, found_scores, NEAR)
    assert check.state == ("pass" if factor == 1 else "fail")
    slope = slope_of(found_scores)
    assert slope is not None
    assert slope.value == pytest.approx(factor, abs=0.03)


def test_a_saturated_answer_hides_no_wrong_scale() -> None:
    """Probabilities near 1 do not move: what stands before the answer does."""
    change = CHANGE.copy()
    change[:, 13:] = 0
    served = scores(change * 2)
    saturated = Scores(served.base, _plain(BASE + change), served.served, served.served_base)
    check = check_scores(CASES, saturated, NEAR)
    assert (check.state, check.details["difference"] < NEAR.answers) == ("fail", True)


@pytest.mark.parametrize(
    ("served", "name", "words"),
    [
        (CHANGE * 0, "base", "answers as the base, without the adapter"),
        (CHANGE * 2, "scale", "its scale x2"),
        (CHANGE * 0.5, "scale", "its scale x0.5"),
        (rows(1.5, 9), "adapter", "another adapter on the same base"),
    ],
)
def test_scores_name_what_is_served_instead(served: np.ndarray, name: str, words: str) -> None:  # type: ignore[type-arg]
    wrong = {f"x{factor:g}": _plain(BASE + CHANGE * factor) for factor in (0.5, 2.0)}
    cause = of_scores(scores(served), wrong, is_same_base=True)
    assert cause.name == name
    assert words in cause.words


def test_another_base_is_told_where_nothing_else_explains() -> None:
    strange = scores(CHANGE + rows(1, 7), base_noise=2.0)
    assert of_scores(strange, {}, None).name == "base"
    assert "another model" in of_scores(strange, {}, None).words
    assert "another digest" in of_scores(scores(rows(1.5, 9)), {}, False).words


def test_what_is_left_over_is_least_for_what_is_served() -> None:
    found_scores = scores(CHANGE * 2)
    others = {ITSELF: found_scores.adapter, NO_ADAPTER: found_scores.base, "scale x2": _plain(BASE + CHANGE * 2)}
    left = left_over(found_scores, others)
    assert min(left, key=lambda name: left[name]) == "scale x2"


def test_without_a_base_to_ask_scores_are_held_as_they_are() -> None:
    merged = replace(scores(CHANGE), served_base=None)
    assert check_scores(CASES, merged, NEAR).state == "pass"
    assert merged.base_error is None
    plain = replace(scores(CHANGE * 0), served_base=None)
    assert of_scores(plain, {}, None).name == "base"


GREEDY = Greedy((0, 1, 2, 3, 9), (5.0, 0.05, 4.0, 3.0, 2.0), True)


@pytest.mark.parametrize(
    ("text", "at"),
    [("abcd", None), ("axcd", 1), ("abc", 3), ("abcde", 4), ("", 0)],
)
def test_answers_part_at_the_first_token_that_is_not_there(text: str, at: int | None) -> None:
    assert parting(GREEDY, text, decode) == at


def test_an_answer_cut_by_its_budget_is_compared_as_far_as_it_goes() -> None:
    endless = Greedy((0, 1, 2), (1, 1, 1), False)
    assert parting(endless, "abcxyz", decode) is None
    assert parting(endless, "abx", decode) == 2


def test_half_a_character_is_not_taken_for_a_difference() -> None:
    pieces = {1: "a", 2: "\N{REPLACEMENT CHARACTER}", 3: "\N{HANGUL SYLLABLE GA}"}

    def halves(ids: Sequence[int]) -> str:
        """Tokens 2 and 3 are the two halves of one character."""
        return pieces[1] + (pieces[3] if 3 in ids else pieces[2] if 2 in ids else "")

    assert parting(Greedy((1, 2, 3, 9), (9, 9, 9, 9), True), "a\N{HANGUL SYLLABLE GA}", halves) is None


def test_near_ties_may_part_and_others_may_not() -> None:
    def check(text: str) -> Check:
        return check_greedy(CASES[:2], [GREEDY] * 2, [answer("abcd"), answer(text)], decode, NEAR)

    assert check("abcd").state == "pass"
    assert "1 part at a near tie" in check("axcd").words  # token 1 leads by 0.05 only
    assert check("abxd").state == "fail"
    assert check("abxd").rows == (2,)
    apart = check_greedy(CASES[:1], [GREEDY], [answer("", is_plain=False)], decode, NEAR)
    assert apart.state == "skipped"


def test_an_answer_must_end_where_the_references_does() -> None:
    def check(ours: Sequence[Greedy], theirs: Sequence[Answer]) -> Check:
        return check_ends(CASES[:2], ours, theirs, decode, NEAR)

    endless = replace(GREEDY, has_ended=False)
    assert check([GREEDY] * 2, [answer("")] * 2).state == "pass"
    assert check([GREEDY] * 2, [answer(""), answer("", has_ended=False)]).rows == (2,)
    assert check([GREEDY] * 2, [answer("abcd"), answer("abcdefgh", has_ended=False)]).rows == (2,)  # past its end
    assert check([GREEDY, endless], [answer("")] * 2).state == "pass"
    never = check([endless] * 2, [answer("", has_ended=False)] * 2)
    assert (never.state, "trained without the end token" in never.words) == ("fail", True)


def test_an_answer_that_went_on_from_a_near_tie_is_no_fault_of_its_end() -> None:
    tied, far = (
        answer("axcdefgh", has_ended=False),
        answer("abxdefgh", has_ended=False),
    )  # token 1 leads by 0.05, token 2 by 4
    check = check_ends(CASES[:3], [GREEDY] * 3, [answer("abcd"), tied, tied], decode, NEAR)
    assert (check.state, check.words) == (
        "pass",
        "1 of 3 answers end within their budget; 2 went on from a near tie",
    )
    assert check_ends(CASES[:3], [GREEDY] * 3, [answer("abcd"), tied, far], decode, NEAR).rows == (3,)
    apart = replace(tied, is_plain=False)  # all of it is not known, so neither is where it parts
    assert check_ends(CASES[:1], [GREEDY], [apart], decode, NEAR).rows == (1,)


def test_what_follows_from_an_earlier_fault_is_not_told_again() -> None:
    checks = [Check(name, "fail", "") for name in ("ids", "scores", "ends", "greedy")]
    causes = {check.name: Cause(check.name, "") for check in checks}
    assert [cause.name for cause in found(checks, causes)] == ["ids", "scores"]
    assert [cause.name for cause in found(checks[2:], causes)] == ["ends"]
    assert found([Check("ids", "pass", "")], causes) == ()


def test_formats_stand_from_fine_to_coarse() -> None:
    assert [row.base for row in TOLERANCES] == sorted(row.base for row in TOLERANCES)
    assert [row.tie for row in TOLERANCES] == sorted(row.tie for row in TOLERANCES)
    measured = {
        "F16": 0.0022,
        "Q8_0": 0.0588,
        "Q6_K": 0.1264,
        "Q5_K_M": 0.1669,
        "Q4_K_M": 0.322,
        "Q3_K_M": 0.4643,
        "Q2_K": 1.2207,
    }
    for name, error in measured.items():
        allowed = by_base_error(error)
        assert allowed is not None
        assert NAMES.index(allowed.weights) <= NAMES.index(name)
    assert by_base_error(3.0) is None
