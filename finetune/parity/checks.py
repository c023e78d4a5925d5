"""What is held against the reference, each a verdict of its own. Pure.

ids      the endpoint renders messages to the token ids of training
scores   held-out answers have the reference's log-probabilities, and the adapter changes all tokens as it should
ends     answers end by themselves within their budget
greedy   greedy answers are the reference's, up to where two tokens were nearly as likely
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from backends.adapter.proof_estimate import Estimate, ratio_over_texts
from finetune.parity.cases import Case
from finetune.parity.reference import Greedy, Rows
from finetune.parity.served import Answer
from finetune.parity.tolerance import Tolerance

State = Literal["pass", "fail", "skipped"]
Decode = Callable[[Sequence[int]], str]
SLOPE = 0.2
"""The served change, regressed on the reference's, is 1 within this, as for a proof."""
_TAIL = 1e-3
_CONTEXT = 12
"""Tokens shown before a difference."""
_SHOWN_AFTER = 8
_CUT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State
    words: str
    rows: tuple[int, ...] = ()
    """Numbers of those that failed."""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scores:
    """Rows of log-probabilities by the reference and by the endpoint. `served_base` is None where its base cannot be asked."""

    base: Rows
    adapter: Rows
    served: Rows
    served_base: Rows | None

    @property
    def base_error(self) -> float | None:
        """Root mean square over all tokens."""
        return None if self.served_base is None else _rms(_differences(self.served_base, self.base))


def check_ids(cases: Sequence[Case], served: Sequence[Sequence[int]], decode: Decode) -> Check:
    """`served`: the endpoint's own rendering of each case's messages."""
    differing = [(case, ids) for case, ids in zip(cases, served, strict=True) if tuple(ids) != case.prompt]
    if not differing:
        return Check("ids", "pass", f"{len(cases)} prompts are rendered to the token ids of training")
    case, ids = differing[0]
    told = f"{len(differing)} of {len(cases)} prompts are rendered otherwise than in training"
    words = f"{told}; row {case.number} {_parting(case, ids, decode)}"
    return Check("ids", "fail", words, tuple(case.number for case, _ in differing))


def check_lengths(cases: Sequence[Case], answers: Sequence[Answer]) -> Check:
    """Where an endpoint renders nothing for us, it still counts."""
    counted = [(case, one.num_prompt_tokens) for case, one in zip(cases, answers, strict=True) if one.num_prompt_tokens]
    if not counted:
        return Check("ids", "skipped", "the endpoint neither renders messages (/tokenize) nor counts prompt tokens")
    differing = [(case, count) for case, count in counted if count != case.first]
    if not differing:
        return Check(
            "ids", "pass", f"{len(counted)} prompts have as many tokens as in training (the endpoint has no /tokenize)"
        )
    case, count = differing[0]
    words = f"{len(differing)} of {len(counted)} prompts have other numbers of tokens; row {case.number}: {count}, in training {case.first}"
    return Check("ids", "fail", words, tuple(case.number for case, _ in differing))


def _parting(case: Case, served: Sequence[int], decode: Decode) -> str:
    """The first difference, as text."""
    at = next(
        (place for place, (a, b) in enumerate(zip(case.prompt, served, strict=False)) if a != b),
        min(case.first, len(served)),
    )
    before = decode(case.prompt[max(0, at - _CONTEXT) : at])
    ours, theirs = (decode(ids[at : at + _SHOWN_AFTER]) for ids in (case.prompt, served))
    return f"at token {at}: after {before!r} training has {ours!r}, the endpoint {theirs!r}"


def check_scores(cases: Sequence[Case], scores: Scores, tolerance: Tolerance) -> Check:
    errors = [
        _rms([row[case.first - 1 :]])
        for case, row in zip(cases, _differences(scores.served, scores.adapter), strict=True)
    ]
    answers = math.sqrt(
        sum(e * e * c.num_answer_tokens for e, c in zip(errors, cases, strict=True)) / _num_answered(cases)
    )
    slope = slope_of(scores)
    base_error = scores.base_error
    is_far = answers > tolerance.answers
    is_scaled = slope is not None and abs(slope.value - 1) - _margin(slope) > SLOPE
    words = [
        f"held-out answers differ by {answers:.4f} nat, {tolerance.answers:g} are allowed for weights like {tolerance.weights}"
    ]
    if slope is not None:
        words.append(f"the served change is {slope.value:.3f} of the reference's")
    if base_error is not None:
        words.append(f"the base differs by {base_error:.4f}")
    failed = [case.number for case, error in zip(cases, errors, strict=True) if error > tolerance.answers]
    details = {
        "difference": answers, "limit": tolerance.answers, "slope": slope.value if slope else None, "base_difference": base_error,
        "num_tokens": sum(map(len, scores.served)),
    }  # fmt: skip
    return Check("scores", "fail" if is_far or is_scaled else "pass", "; ".join(words), tuple(failed), details)


def on_other_base(check: Check) -> Check:
    """What was held against a base with another digest: how far that one may lie off cannot be told from how far it does."""
    return replace(check, state="fail", words=f"{check.words}; the served base has another digest than the one given")


def slope_of(scores: Scores) -> Estimate | None:
    """<s, f> / <d, f> over texts, s the served change and d the reference's, f = d / (1 + |d|); None where nothing changes."""
    served_base = scores.base if scores.served_base is None else scores.served_base
    served, reference = _differences(scores.served, served_base), _differences(scores.adapter, scores.base)
    tempered = [[value / (1 + abs(value)) for value in row] for row in reference]
    return ratio_over_texts(_products(served, tempered), _products(reference, tempered))


def check_ends(
    cases: Sequence[Case], reference: Sequence[Greedy], served: Sequence[Answer], decode: Decode, tolerance: Tolerance
) -> Check:
    """An answer that the reference does not end either is no fault of the endpoint, nor one that parted from it at a near tie."""
    pairs = list(zip(cases, reference, served, strict=True))
    late = [(case.number, ours, theirs) for case, ours, theirs in pairs if ours.has_ended and not theirs.has_ended]
    endless = [number for number, ours, theirs in late if not _is_tied(ours, theirs, decode, tolerance)]
    never = [case.number for case, ours, _ in pairs if not ours.has_ended]
    if endless:
        words = f"{len(endless)} of {len(cases)} answers do not end within their budget, where the reference's do"
        return Check("ends", "fail", words, tuple(endless), {"num_endless_in_reference": len(never)})
    if 2 * len(never) > len(cases):
        words = f"the adapter itself does not end its answers ({len(never)} of {len(cases)}): it was trained without the end token"
        return Check("ends", "fail", words, tuple(never), {"num_endless_in_reference": len(never)})
    more = f"; {len(never)} do not end in the reference either" if never else ""
    more += f"; {len(late)} went on from a near tie" if late else ""
    num_ended = len(cases) - len(never) - len(late)
    return Check("ends", "pass", f"{num_ended} of {len(cases)} answers end within their budget{more}")


def check_greedy(
    cases: Sequence[Case], reference: Sequence[Greedy], served: Sequence[Answer], decode: Decode, tolerance: Tolerance
) -> Check:
    num_equal = num_tied = num_apart = 0
    faults: list[tuple[Case, float, str]] = []
    for case, ours, theirs in zip(cases, reference, served, strict=True):
        if not theirs.is_plain:
            num_apart += 1
        elif (at := parting(ours, theirs.text, decode)) is None:
            num_equal += 1
        elif ours.margins[at] <= tolerance.tie:
            num_tied += 1
        else:
            faults.append((case, ours.margins[at], f"{decode(ours.spoken)!r}, the endpoint {theirs.text!r}"))
    told = f"{num_equal} of {len(cases)} greedy answers are equal, {num_tied} part at a near tie (up to {tolerance.tie:g} nat)"
    if num_apart:
        told += f", {num_apart} come in parts that are not compared"
    if not faults:
        return Check("greedy", "pass" if num_apart < len(cases) else "skipped", told)
    case, margin, texts = faults[0]
    words = f"{told}; row {case.number} parts where the reference's token leads by {margin:.2f}: it has {texts}"
    return Check("greedy", "fail", words, tuple(case.number for case, _, _ in faults))


def _is_tied(ours: Greedy, theirs: Answer, decode: Decode, tolerance: Tolerance) -> bool:
    """Whether they part where the reference's token hardly leads."""
    at = parting(ours, theirs.text, decode) if theirs.is_plain else None
    return at is not None and ours.margins[at] <= tolerance.tie


def parting(ours: Greedy, text: str, decode: Decode) -> int | None:
    """The first token of the reference's answer that a served text does not have; None where it has all of them and no more."""
    spoken = ours.spoken
    for place in range(1, len(spoken) + 1):
        if not text.startswith(decode(spoken[:place]).rstrip(_CUT)):
            return place - 1
    if text == decode(spoken) or not ours.has_ended:
        return None
    return len(spoken)  # it ended there, the endpoint went on


def left_over(scores: Scores, others: Mapping[str, Rows]) -> dict[str, float]:
    """Root mean squares of what is left of the served change, were each of `others` what is served."""
    served_base = scores.base if scores.served_base is None else scores.served_base
    served = _differences(scores.served, served_base)
    return {name: _rms(_differences(served, _differences(rows, scores.base))) for name, rows in others.items()}


def changed(scores: Scores) -> float:
    """Root mean square of the reference's change."""
    return _rms(_differences(scores.adapter, scores.base))


def _margin(estimate: Estimate) -> float:
    margin = estimate.margin(_TAIL)
    return margin if math.isfinite(margin) else 0.0


def _num_answered(cases: Sequence[Case]) -> int:
    return sum(case.num_answer_tokens for case in cases)


def _differences(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]


def _products(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> list[float]:
    return [sum(a * b for a, b in zip(*rows, strict=True)) for rows in zip(left, right, strict=True)]


def _rms(rows: Sequence[Sequence[float]]) -> float:
    values = [value for row in rows for value in row]
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0
