"""Whether an engine serves the adapter that it is asked for: the difference that it makes, held against the reference's. Pure, stdlib only.

    golden = read_golden(path)
    for num_texts in looks(golden):
        prompts = golden.prompts[:num_texts]                   # texts scored at an earlier look need no second scoring
        base = await calls.score(call, base_name, prompts)     # once per launch for the first golden.num_shared texts
        served = await calls.score(call, version_name, prompts)
        verdict = judge(golden, base, served, siblings)
        if verdict.is_final:
            break

For the scored tokens, let b, a and a_k be the reference's log-probabilities by the base, with the adapter, and with the adapter
as fault k leaves it (a decoy; `no adapter` is b itself), and b', a' the engine's. The reference difference is d = a - b, the served
one s = a' - b'. What quantisation does to the base is in b' and a' alike and cancels to first order; r = s - d is what is left.

    projection   <s, f> / <d, f>        1 where the adapter is served; must not be proved to lie outside 1 +- 0.2; f = d / (1 + |d|)
    nearness_k   <r, f_k> / <e_k, f_k>  with e_k = a_k - a, f_k = e_k / (1 + |e_k|): 0 where the adapter is served, 1 where fault k is
    unexplained  |r|^2                  at most 0.2^2 max(|s|^2, |d|^2) + (2 |b' - b|)^2: no more than the tolerance of the projection,
                                        and twice what quantisation was seen to do to the base. Rejects what is among no decoys

Nearness is a matched filter for noise whose variance grows with the change, as it was measured to do: by 1 + |e_k / nat|. The plain
filter, with e_k for f_k, lets a few tokens of many nats decide, and needs two to four times the texts for the same certainty.

Decoy k is `rejected` where its nearness is below 1/2 by more than its margin, `fits` where it is above by more, else `open`. Siblings,
other versions of the same base with goldens of their own, are decoys likewise, over the shared texts. Margins are Student's quantiles
of the jackknife over texts (see `proof_estimate`, and why not a bootstrap): tokens of one text are not independent, texts are.

Verdict: `failed` where a decoy or sibling fits, the projection lies outside, too much is unexplained, or a score is no number; else
`weak` where a decoy is open, or the noise would let another adapter pass; else `indistinguishable` where a sibling is open; else
`proven`.

Looks: only `proven` ends a proof early, after 1/8, 1/4 or 1/2 of the tokens; every other verdict is for the last look, which has all.
A fault k that is served passes at a look with probability MISS / 4, so at any with MISS at most, however many decoys there are, since
all must be rejected, k too. A sound adapter fails at the last look only, with probability ALARM at most: its margins are for ALARM
divided by the number of tests. Both hold for noise that differs from text to text; what moves all of them alike has the distance to
1/2 for room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from backends.adapter.golden import Golden
from backends.adapter.proof_case import Case, Reading, read_scores
from backends.adapter.proof_estimate import Estimate

TOLERANCE = 0.2
MISS = 1e-3
"""Probability at most that a served fault is called proven."""
ALARM = 1e-3
"""Probability at most that noise makes a sound adapter fail."""
LOOKS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the scored tokens at which a proof may end."""
QUANTISATION = 2.0
"""So many times what it does to the base's scores it may do to an adapter's difference."""
NO_ADAPTER = "no adapter"
ANY_OTHER = "any other adapter"

State = Literal["proven", "weak", "indistinguishable", "failed"]
Outcome = Literal["rejected", "open", "fits"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The served adapter between the reference (nearness 0) and a decoy or sibling (1)."""

    name: str
    nearness: float
    error: float
    """Standard error of the nearness; infinite where a single text decides, or the two do not differ."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the scores prove. Amounts are root mean squares over tokens, in nats."""

    state: State
    is_final: bool
    """False: more texts may still prove it."""
    reason: str
    """In words for a user; empty for `proven`."""
    projection: float
    """Of the served difference on the reference's; 0 where the adapter changes nothing."""
    margin: float
    """The projection lies within +- margin."""
    effect: float
    """What the adapter changes."""
    unexplained: float
    """What is left of the served difference."""
    base_error: float
    """What the engine's base differs from the reference's: quantisation, mostly."""
    num_tokens: int
    num_texts: int
    decoys: tuple[Comparison, ...]
    siblings: tuple[Comparison, ...] = ()

    @property
    def weak_against(self) -> tuple[str, ...]:
        """Decoys that cannot be told from what is served."""
        return tuple(decoy.name for decoy in self.decoys if decoy.outcome == "open")

    @property
    def indistinguishable_from(self) -> tuple[str, ...]:
        """Siblings nearer than the noise."""
        return tuple(sibling.name for sibling in self.siblings if sibling.outcome == "open")


def looks(golden: Golden) -> tuple[int, ...]:
    """Numbers of texts, ascending, after which to judge; the last is all."""
    done = list(accumulate(text.num_scored for text in golden.texts))
    return tuple(sorted({1 + sum(count < share * done[-1] for count in done) for share in LOOKS}))


def judge(
    golden: Golden,
    base: Sequence[Sequence[float]],
    served: Sequence[Sequence[float]],
    siblings: Mapping[str, Golden] | None = None,
) -> Verdict:
    """The verdict on the first len(served) texts.

    `base` and `served`: for each text the engine's log-probability of each token but the first, by the base and by the version under
    test, as `AdapterCalls.score` gives them. `siblings`: goldens of other versions, by name; those of another base or probe set are
    left out. Raises ProofError for scores of another shape.
    """
    scores = read_scores(golden, base, served)
    if scores is None:
        return _no_number(golden, len(served))
    case = Case.of(golden, *scores, num_texts=len(served))
    others = {name: other.adapter for name, other in (siblings or {}).items() if _is_comparable(golden, other)}
    num_shared = min(golden.num_shared, len(served))
    decoys = [case.read(name, row, len(served)) for name, row in {NO_ADAPTER: golden.base, **golden.decoys}.items()]
    nears = [case.read(name, row, num_shared) for name, row in others.items()]
    return _Finding.of(case, decoys, nears).verdict(is_last=len(served) == len(golden.texts))


def _is_comparable(golden: Golden, other: Golden) -> bool:
    return (other.base_digest, other.probe_id) == (golden.base_digest, golden.probe_id)


def _no_number(golden: Golden, num_texts: int) -> Verdict:
    num_tokens = sum(text.num_scored for text in golden.texts[:num_texts])
    reason = "the engine gives a score that is no finite number"
    return Verdict("failed", True, reason, 0.0, math.inf, 0.0, 0.0, 0.0, num_tokens, num_texts, ())


@dataclass(frozen=True, slots=True)
class _Finding:
    """All that a verdict is made of, and the tails that its margins are for."""

    case: Case
    decoys: tuple[tuple[Reading, Outcome], ...]
    siblings: tuple[tuple[Reading, Outcome], ...]
    alarm_tail: float

    @classmethod
    def of(cls, case: Case, decoys: Sequence[Reading], siblings: Sequence[Reading]) -> _Finding:
        tail = ALARM / (1 + len(decoys) + len(siblings))
        first, second = (tuple((near, _outcome(near.estimate, tail)) for near in row) for row in (decoys, siblings))
        return cls(case, first, second, tail)

    def verdict(self, is_last: bool) -> Verdict:
        found = self.case.projection
        state, reason = self._state()
        return Verdict(
            state=state,
            is_final=is_last or state == "proven",
            reason=reason,
            projection=found.value if found else 0.0,
            margin=found.margin(self.alarm_tail) if found else math.inf,
            effect=self.case.mean(self.case.reference_energy),
            unexplained=self.case.mean(self.case.residual_energy),
            base_error=self.case.mean(self.case.base_energy),
            num_tokens=self.case.num_tokens,
            num_texts=len(self.case.ends),
            decoys=tuple(_comparison(*near) for near in self.decoys),
            siblings=tuple(_comparison(*near) for near in self.siblings),
        )

    def _state(self) -> tuple[State, str]:
        if fault := self._fault():
            return "failed", fault
        if weak := self._weak_against():
            return "weak", f"at this engine's precision it cannot be told from: {', '.join(weak)}"
        if near := _open(self.siblings):
            return "indistinguishable", f"nearer than the noise: {', '.join(near)}"
        return "proven", ""

    def _weak_against(self) -> list[str]:
        weak = _open(self.decoys)
        if self._limit(self.case.reference_energy, self.case.base_energy) > self.case.reference_energy / 2:
            weak.append(ANY_OTHER)
        found = self.case.projection
        # Not proved to lie outside, or it would have failed: noise. But not what a proof is.
        if found is not None and abs(found.value - 1) > TOLERANCE:
            weak.append(f"one of {found.value:.2f} times its strength")
        return weak

    def _fault(self) -> str:
        """What is served instead, in words; empty where nothing speaks against the adapter."""
        case, found = self.case, self.case.projection
        is_outside = found is not None and abs(found.value - 1) - found.margin(self.alarm_tail) > TOLERANCE
        is_foreign = case.residual_energy > self._limit(
            max(case.served_energy, case.reference_energy), case.base_energy
        )
        fitting = [near for near, outcome in (*self.decoys, *self.siblings) if outcome == "fits"]
        if not (is_outside or is_foreign or fitting):
            return ""
        if explaining := [near for near, _ in (*self.decoys, *self.siblings) if self._explains(near)]:
            best = min(
                explaining, key=lambda near: near.left_energy / near.served_energy if near.served_energy else 0.0
            )
            return self._words(best)
        return f"the engine serves something else: a projection of {found.value:.2f} on the adapter" if found else (
            "the engine serves something else: the adapter changes nothing, what is served does"
        )  # fmt: skip

    def _explains(self, near: Reading) -> bool:
        """Whether it would pass where the adapter itself does not."""
        size = max(near.served_energy, near.reference_energy)
        return (
            near.estimate is not None
            and near.estimate.value > 0.5
            and near.left_energy <= self._limit(size, near.base_energy)
        )

    def _limit(self, size: float, base_energy: float) -> float:
        """How much may be left unexplained of so large a difference."""
        return TOLERANCE**2 * size + QUANTISATION**2 * base_energy

    def _words(self, near: Reading) -> str:
        if near.name == NO_ADAPTER:
            return "the engine serves the base model, without the adapter"
        if near in (sibling for sibling, _ in self.siblings):
            return f"the engine serves {near.name} instead"
        return f"the engine serves it with {near.name}"


def _open(row: Sequence[tuple[Reading, Outcome]]) -> list[str]:
    return [near.name for near, outcome in row if outcome == "open"]


def _outcome(found: Estimate | None, alarm_tail: float) -> Outcome:
    if found is None:
        return "open"
    if found.value + found.margin(MISS / len(LOOKS)) < 0.5:
        return "rejected"
    return "fits" if found.value - found.margin(alarm_tail) > 0.5 else "open"


def _comparison(near: Reading, outcome: Outcome) -> Comparison:
    found = near.estimate
    return Comparison(near.name, found.value if found else 0.0, found.error if found else math.inf, outcome)
