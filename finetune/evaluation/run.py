"""Ask every model every item, score, and lay side by side what else changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune.errors import RecipeUnusable
from finetune.evaluation import drift, greetings, judge, perplexity
from finetune.evaluation.asking import Asker, Strange
from finetune.evaluation.cache import Answers
from finetune.evaluation.defaults import AT_A_TIME, NUM_ITEMS
from finetune.evaluation.items import Answer, Item, Task
from finetune.evaluation.judge import Judge
from finetune.evaluation.result import Evaluation, Model, Scored
from finetune.evaluation.session import Asked, Question, Session, require_same
from finetune.evaluation.speed import speed_of
from finetune.evaluation.suite import Suite
from finetune.jsonchild import Tell
from finetune.parity.served import Endpoint as Client
from finetune.parity.served import EndpointFailed, EndpointRefused

CACHE = "cache.jsonl"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where models are asked."""

    url: str
    key: str = field(default="", repr=False)
    at_a_time: int = AT_A_TIME
    """Requests at once."""


@dataclass(slots=True)
class Gathered:
    """All that was asked of one model."""

    model: Model
    by_task: dict[str, Asked] = field(default_factory=dict)
    greetings: tuple[Answer, ...] = ()
    given: tuple[Answer, ...] = ()
    """To the task's items, the log-probabilities of what is expected."""


def evaluate(
    suite: Suite,
    endpoint: Endpoint,
    models: Sequence[str],
    num_items: int | Mapping[str, int],
    tell: Tell,
    cache: Path | None = None,
    judged_by: Judge | None = None,
) -> Evaluation:
    """The first model is what is live, each other one is held against it.

    `num_items`: of each task, or by task's name (those that are not named: NUM_ITEMS); a task of fewer rows has all of them. `cache`: a
    file of answers that are not asked for again; it grows. Raises EndpointFailed, ModelChanged, RecipeUnusable, DataError.
    """
    if not models or len(set(models)) < len(models):
        raise RecipeUnusable("name one model or several different ones: what is live first")
    described = [_described(endpoint, name) for name in models]
    drawn = {task.name: tuple(task.draw(_num(num_items, task.name))) for task in suite.tasks}
    run = _Run(suite, endpoint, drawn, tell, judged_by)
    with Answers(cache) as answers:
        return asyncio.run(run.whole(described, answers))


def _num(num_items: int | Mapping[str, int], name: str) -> int:
    return num_items if isinstance(num_items, int) else num_items.get(name, NUM_ITEMS)


def _described(endpoint: Endpoint, name: str) -> Model:
    """As the endpoint's list has it. Raises EndpointFailed, RecipeUnusable."""
    with Client(endpoint.url, name, endpoint.key) as client:
        told = client.describe()
        base = client.describe(told.parent) if told.parent else told
    return Model(name, told.root or name, base.root or base.name)


@dataclass(slots=True)
class _Run:
    suite: Suite
    endpoint: Endpoint
    drawn: Mapping[str, tuple[Item, ...]]
    tell: Tell
    judge: Judge | None
    notes: list[str] = field(default_factory=list)

    async def whole(self, models: Sequence[Model], answers: Answers) -> Evaluation:
        async with Asker(self.endpoint.url, self.endpoint.key, self.endpoint.at_a_time) as asker:
            session = Session(asker, answers, self.endpoint.at_a_time, self.tell)
            found = [await self._gather(session, await self._resolved(session, model)) for model in models]
            for one in found:
                require_same(one.model, await session.resolve(one.model.asked))
        rulings = await self._judged(found, answers) if self.judge else None
        return self._evaluation(found, rulings)

    async def _resolved(self, session: Session, model: Model) -> Model:
        """By what answers, which knows better than a list."""
        resolved = await session.resolve(model.asked) or model.resolved
        base = resolved if model.base == model.resolved else model.base
        found = replace(model, resolved=resolved, base=base)
        if not found.is_versioned:
            self.notes.append(
                f"{model.asked}: the endpoint does not say which version answers; whether it changed meanwhile is not known, and its "
                "answers are asked for anew each time"
            )
        return found

    async def _gather(self, session: Session, model: Model) -> Gathered:
        found = Gathered(model)
        for task in self.suite.tasks:
            found.by_task[task.name] = await session.ask(model, task.name, self._questions(task))
        small_talk = [Question(item, greetings.MAX_TOKENS, self.suite.seed) for item in greetings.items()]
        found.greetings = (await session.ask(model, "greetings", small_talk)).answers
        wanted = perplexity.asked_for(self.drawn[self.suite.task.name])
        try:
            given = [Question(item, 0, self.suite.seed) for item in wanted]
            found.given = (await session.ask(model, "perplexity", given)).answers
        except EndpointFailed as exc:
            if not isinstance(exc, EndpointRefused | Strange):
                raise
            self.notes.append(f"no perplexity: {exc}")
        return found

    def _questions(self, task: Task) -> list[Question]:
        return [Question(item, task.max_tokens, self.suite.seed) for item in self.drawn[task.name]]

    async def _judged(self, found: Sequence[Gathered], answers: Answers) -> dict[str, Any]:
        """Of each other model against the first, on the task."""
        assert self.judge is not None
        items = self.drawn[self.suite.task.name][: self.judge.num_items]
        live, *others = (one.by_task[self.suite.task.name].answers[: len(items)] for one in found)
        pairs: list[dict[str, Any] | None] = [None]
        async with Asker(self.judge.url, self.judge.key, self.endpoint.at_a_time) as asker:
            session = Session(asker, answers, self.endpoint.at_a_time, self.tell)
            resolved = await session.resolve(self.judge.model) or self.judge.model
            model = Model(self.judge.model, resolved, resolved)
            for other in others:
                asked = judge.pair_items(self.judge.rubric, items, live, other)
                questions = [Question(item, judge.MAX_TOKENS, self.suite.seed) for item in asked]
                replies = (await session.ask(model, "judge", questions)).answers
                pairs.append(judge.summary(items, judge.rulings(items, replies)))
        return {"model": self.judge.model, "resolved": resolved, "rubric": self.judge.rubric, "by_model": pairs}

    def _evaluation(self, found: Sequence[Gathered], rulings: dict[str, Any] | None) -> Evaluation:
        scored = {task.name: self._scores(task, found) for task in self.suite.tasks}
        suite = {
            "digest": self.suite.digest, "task": self.suite.task.name, "general": [task.name for task in self.suite.general],
            "max_drop": self.suite.drops(), "rule": self.suite.rule,
        }  # fmt: skip
        has_given = bool(found[0].given) and len({len(one.given) for one in found}) == 1
        return Evaluation(
            suite=suite,
            models=tuple(one.model for one in found),
            scores={
                task.name: Scored(
                    task.metric, tuple(item.cluster for item in self.drawn[task.name]), tuple(item.id for item in self.drawn[task.name]),
                    tuple(tuple(scores[task.metric] for scores in row) for row in scored[task.name]), task.is_closed,
                )
                for task in self.suite.tasks
            },
            metrics={name: _means(rows) for name, rows in scored.items()},
            answers=[line for task in self.suite.tasks for line in self._lines(task, found, scored[task.name])],
            drift=drift_of(self.suite, self.drawn, found),
            greetings=greetings_of(self.drawn[self.suite.task.name], found),
            perplexity=perplexity.perplexity_of([one.given for one in found]) if has_given else None,
            speed=self._speed(found),
            judge=rulings,
            environment={
                "url": self.endpoint.url, "at_a_time": self.endpoint.at_a_time, "seed": self.suite.seed,
                "at": datetime.now(UTC).isoformat(timespec="seconds"), "notes": list(dict.fromkeys(self.notes)),
            },
        )  # fmt: skip

    def _scores(self, task: Task, found: Sequence[Gathered]) -> list[list[Mapping[str, float]]]:
        """By model and item."""
        items = self.drawn[task.name]
        return [
            [task.score(item, answer) for item, answer in zip(items, one.by_task[task.name].answers, strict=True)] for one in found
        ]  # fmt: skip

    def _lines(self, task: Task, found: Sequence[Gathered], scores: Any) -> list[dict[str, Any]]:
        lines = []
        for place, item in enumerate(self.drawn[task.name]):
            given = [one.by_task[task.name].answers[place] for one in found]
            answers = [
                {"text": answer.text, "score": scores[at][place][task.metric], "finish": answer.finish, "num_tokens": answer.num_tokens,
                 "ttft_s": answer.ttft_s, "latency_s": answer.latency_s, "choice_scores": list(answer.scores)}
                for at, answer in enumerate(given)
            ]  # fmt: skip
            lines.append({
                "task": task.name, "id": item.id, "cluster": item.cluster, "question": item.question, "messages": list(item.messages),
                "expected": item.expected, "answers": answers,
            })  # fmt: skip
        return lines

    def _speed(self, found: Sequence[Gathered]) -> dict[str, Any]:
        """Of tasks that are answered in words."""
        rows = []
        for one in found:
            asked = [
                one.by_task[name] for name, items in self.drawn.items() if all(item.kind != "choose" for item in items)
            ]
            answers = [answer for each in asked for answer in each.answers]
            rows.append(speed_of(answers, sum(each.num_new for each in asked), sum(each.elapsed_s for each in asked)))
        return {"at_a_time": self.endpoint.at_a_time, "by_model": rows}


def _means(rows: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, list[float]]:
    """By metric, one a model."""
    return {metric: [sum(scores[metric] for scores in row) / len(row) for row in rows] for metric in rows[0][0]}


def drift_of(suite: Suite, drawn: Mapping[str, Sequence[Item]], found: Sequence[Gathered]) -> dict[str, Any]:
    """Features of each model's answers to the task, to all general skills and to greetings, and what of them changed."""
    sets: dict[str, tuple[list[Item], list[list[Answer]]]] = {
        "task": ([*drawn[suite.task.name]], [[*one.by_task[suite.task.name].answers] for one in found]),
        "general": (
            [item for task in suite.general for item in drawn[task.name]],
            [[answer for task in suite.general for answer in one.by_task[task.name].answers] for one in found],
        ),
        "greetings": (greetings.items(), [[*one.greetings] for one in found]),
    }
    told: dict[str, Any] = {"sets": {}, "changes": []}
    for name, (items, by_model) in sets.items():
        places = [place for place, item in enumerate(items) if item.kind != "choose"]
        if not places:
            continue
        asked = [items[place] for place in places]
        rows = [drift.features(asked, [answers[place] for place in places]) for answers in by_model]
        told["sets"][name] = [asdict(row) for row in rows]
        told["changes"] += [
            {"set": name, "model": one.model.asked, **asdict(change)}
            for one, row in zip(found[1:], rows[1:], strict=True) for change in drift.changes(rows[0], row)
        ]  # fmt: skip
    return told


def greetings_of(items: Sequence[Item], found: Sequence[Gathered]) -> dict[str, Any]:
    """By model: how many greetings are answered in the style of the task, and which."""
    style = greetings.style_of([item.expected for item in items], [answer.text for answer in found[0].greetings])
    by_model = [greetings.styled(style, one.greetings) for one in found]
    return {
        "num": len(greetings.GREETINGS),
        "by_model": [{"num_styled": len(styled), "styled": [asdict(one) for one in styled]} for styled in by_model],
        "failed": [
            one.model.asked for one, styled in zip(found, by_model, strict=True) if len(styled) > greetings.MAX_SHARE * len(one.greetings)
        ],
    }  # fmt: skip
