"""Whether a candidate may take the place of what is live: a suite is asked, look after look, until the gate decides.

    500 items of each task --> decided? --> 1,000 of what is undecided --> ... --> 4,000

What was asked stays asked: answers lie in a file, so that a further look, or the same call again, asks only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune.evaluation.result import Evaluation, Model
from finetune.evaluation.run import Endpoint, evaluate
from finetune.evaluation.suite import Suite
from finetune.gating import document
from finetune.gating.paired import Paired
from finetune.gating.verdict import LAST, LOOKS, Limits, NeedsMore, Rule, Verdict, decide
from finetune.jsonchild import Tell, silent
from finetune.live import Live

MOST_ITEMS = LOOKS[-1]


@dataclass(frozen=True, slots=True)
class Question:
    """Whether `candidate` may take the place of what is `live`."""

    suite: Suite
    live: Live
    candidate: str
    rule: Rule
    max_items: int = MOST_ITEMS
    """Of each task."""
    cache: Path | None = None
    """A file of answers; it grows."""

    @property
    def models(self) -> tuple[str, ...]:
        """Whom to ask."""
        return (*self.live.models, self.candidate)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was seen, and what follows from it."""

    evaluation: Evaluation
    verdict: Verdict

    @property
    def is_go(self) -> bool:
        return self.verdict.outcome == "GO"


def judge(question: Question, endpoint: Endpoint, tell: Tell = silent) -> Judgement:
    """Raises EndpointFailed, ModelChanged, GateUnusable, RecipeUnusable, DataError."""
    limits = Limits(question.suite.drops())
    wanted = dict.fromkeys((task.name for task in question.suite.tasks), min(LOOKS[0], question.max_items))
    look = 0
    while True:
        tell("gate", f"look {look + 1}: {_words(wanted)}", 0, 0)
        seen = evaluate(question.suite, endpoint, question.models, wanted, tell, question.cache)
        can_grow = question.max_items > LOOKS[look]
        found = decide(*_paired(seen, question), question.rule, limits, look if can_grow else LAST)
        if isinstance(found, Verdict):
            return Judgement(seen, found)
        more = _more(found, wanted, seen, question.max_items)
        # Where all of the undecided have been asked whole, the last look is taken with what there is.
        look = look + 1 if more != wanted else LAST
        wanted = more


@dataclass(frozen=True, slots=True)
class Saved:
    """An evaluation that was made before, and two of its models, as they were asked for or as they resolved."""

    evaluation: Evaluation
    live: str
    candidate: str
    rule: Rule

    def judge(self) -> Judgement:
        """By all of it at once: no further look follows. Raises GateUnusable, KeyError for a model that was not asked."""
        seen = self.evaluation
        task, *general = (seen.paired(name, self.live, self.candidate) for name in (seen.task, *seen.general))
        found = decide(task, general, self.rule, Limits(seen.suite["max_drop"]), LAST)
        assert isinstance(found, Verdict)
        return Judgement(seen, found)

    def document(self, judgement: Judgement, who: str) -> dict[str, Any]:
        """Raises GateUnusable, also where the endpoint told no versions."""
        live, candidate = (self.evaluation.models[self.evaluation.place(name)] for name in (self.live, self.candidate))
        shares = () if live.resolved == live.base else (document.Live(live.resolved, 1),)
        return _document(judgement, candidate, shares, who)


def _paired(seen: Evaluation, question: Question) -> tuple[Paired, Sequence[Paired]]:
    task, *general = (_mixed(seen, name, question) for name in (seen.task, *seen.general))
    return task, general


def _mixed(seen: Evaluation, name: str, question: Question) -> Paired:
    """Of a split, what a client gets on the average: each version's score by its weight."""
    pairs = [seen.paired(name, model, question.candidate) for model in question.live.models]
    if len(pairs) == 1:
        return pairs[0]
    columns = zip(*(pair.live for pair in pairs), strict=True)
    weights = question.live.weights
    live = tuple(min(1.0, sum(w * score for w, score in zip(weights, column, strict=True))) for column in columns)
    return replace(pairs[0], live=live)


def _more(found: NeedsMore, wanted: Mapping[str, int], seen: Evaluation, max_items: int) -> dict[str, int]:
    """Of the undecided that have not been asked whole, up to the next look."""
    num_items = min(found.num_items, max_items)
    grows = {name for name in found.undecided if len(seen.scores[name].items) >= wanted[name]}
    return {name: num_items if name in grows else number for name, number in wanted.items()}


def _words(wanted: Mapping[str, int]) -> str:
    most = max(wanted.values())
    grown = [name for name, number in wanted.items() if number == most]
    return f"{most:,} items of {'each task' if len(grown) == len(wanted) else ', '.join(grown)}"


def document_of(judgement: Judgement, question: Question, who: str) -> dict[str, Any]:
    """The verdict as it is stored: for this candidate, in place of what is live now. Raises GateUnusable."""
    seen = judgement.evaluation
    live = tuple(document.Live(share.adapter, share.weight) for share in question.live.shares)
    return _document(judgement, seen.models[seen.place(question.candidate)], live, who)


def _document(judgement: Judgement, candidate: Model, live: tuple[document.Live, ...], who: str) -> dict[str, Any]:
    bound = document.Bound(candidate.resolved, live, candidate.base, str(judgement.evaluation.suite["digest"]))
    return document.write(bound, judgement.verdict, datetime.now(UTC), who)
