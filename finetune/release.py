"""From a candidate to an alias that serves it: a verdict first, a canary where one is asked for, then the flip.

live and candidate answer the suite --> GO: verdict posted --> [canary: a part of the traffic, for a while] --> flip with the verdict
                                    --> else: verdict posted, alias untouched; a reason (`force`) moves it all the same
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.admin_client import AdminClient
from backends.atomicfile import atomic_path
from finetune.candidacy import MOST_ITEMS, Judgement, Question, document_of, judge
from finetune.errors import RecipeUnusable, TrainError
from finetune.evaluation.command import write_all
from finetune.evaluation.run import CACHE, Endpoint
from finetune.evaluation.suite import Suite, of_run
from finetune.export.source import recipe_of
from finetune.gating.verdict import Rule
from finetune.jsonchild import Tell
from finetune.live import Live, live_of
from finetune.running import Gateway
from finetune.sharedanswers import shared_answers
from finetune.verdictwords import lines

VERDICT = "verdict.json"
EVALUATION = "evaluation"
"""Of a run's folder: what was asked for the gate, and its verdict."""
NO_HELD_OUT = (
    "nothing was held out to evaluate it on: write val_set_size: 0.1, test_datasets, or evaluation: suite.yaml"
)
CANARY_FOR_S = 60.0
_POLL_S = 1.0


class GateNegative(TrainError):
    """NO-GO, or nobody can tell: it stays a candidate, the alias serves what it did."""

    exit_code = 1

    def __init__(self, message: str, document: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.document = document

    def as_json(self) -> dict[str, Any]:
        return {"event": "refused", "version": self.document["candidate"], "judged": dict(self.document)}


class CanaryFailed(TrainError):
    """Somebody, or the alias's own watch, took the candidate's part of the traffic away while it was tried."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Canary:
    """`percent` of the traffic for `seconds`, before it has all."""

    percent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How far a publication goes. `suite` and `folder` are needed unless it stays a candidate."""

    suite: Suite | None = None
    folder: Path | None = None
    """Where answers and verdict are kept."""
    rule: Rule | None = None
    """In place of the suite's."""
    max_items: int = MOST_ITEMS
    is_candidate_only: bool = False
    force: str = ""
    """A reason that moves the alias against the gate; recorded."""
    canary: Canary | None = None
    remedies: Callable[[], Iterator[str]] = field(default=lambda: iter(()))
    """Lines that say what to change after a NO-GO in which general skills were lost."""


@dataclass(frozen=True, slots=True)
class Released:
    """How the gateway marked the move, and by which verdict."""

    gate: str
    document: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


class Release:
    """Of one candidate. Raises AdminError, GateNegative, CanaryFailed, TrainError, DataError."""

    def __init__(
        self, client: AdminClient, gateway: Gateway, plan: Plan, who: str, tell: Tell,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._client, self._gateway, self._plan, self._who, self._tell = client, gateway, plan, who, tell
        self._clock, self._sleep = clock, sleep

    def go(self, live: Live, version: str) -> Released:
        """Nothing is asked where the alias serves just this version already."""
        if live.is_just(version):
            return Released(self._gate_of(live.alias))
        document, digest = self._judged(live, version)
        notes = self._canary(live, version, digest) if self._plan.canary else ()
        self._tell("alias", f"letting {live.alias} serve {version}", 0, 0)
        change = self._client.point(live.alias, {version: 1}, self._who, force=self._forced(document), verdict=digest)
        return Released(str(change["gate"]), document, notes)

    def _judged(self, live: Live, version: str) -> tuple[Mapping[str, Any], str]:
        """The verdict's document, and its digest where it is GO."""
        plan = self._plan
        if plan.suite is None or plan.folder is None:
            raise RecipeUnusable("a suite is needed to decide whether the alias may move")
        plan.folder.mkdir(parents=True, exist_ok=True)
        cache = shared_answers(self._client, self._gateway, live.base, plan.suite) or plan.folder / CACHE
        question = Question(plan.suite, live, version, plan.rule or plan.suite.rule, plan.max_items, cache)
        judgement = judge(question, Endpoint(self._gateway.url, self._gateway.token), self._tell)
        document = document_of(judgement, question, self._who)
        keep(judgement, document, plan.folder)
        self._tell("verdict", f"telling the gateway: {document['outcome']}", 0, 0)
        digest = self._client.add_verdict(document)
        if not judgement.is_go and not plan.force:
            raise GateNegative("\n".join(self._refusal(live, judgement, document)), document)
        return document, digest if judgement.is_go else ""

    def _refusal(self, live: Live, judgement: Judgement, document: Mapping[str, Any]) -> Iterator[str]:
        version = document["candidate"]
        yield from lines(document, judgement.verdict)
        yield from negative_lines(judgement, self._plan.remedies)
        yield f"its answers: {self._plan.folder}"
        yield f"{version} stays a candidate, no alias was moved; against the verdict, for a reason that is recorded:"
        yield f"  forgegate adapters alias {live.alias} {version} --force REASON"

    def _forced(self, document: Mapping[str, Any]) -> str:
        return "" if document["outcome"] == "GO" else self._plan.force

    def _canary(self, live: Live, version: str, digest: str) -> tuple[str, ...]:
        canary = self._plan.canary
        assert canary is not None
        if not live.shares:
            return (f"no canary: {live.alias} served nothing that it could stand beside",)
        if not live.canary:
            force = "" if digest else self._plan.force
            self._client.point(live.alias, live.beside(version, canary.percent), self._who, force=force, verdict=digest)
        until_s = self._clock() + canary.seconds
        while (left_s := until_s - self._clock()) > 0:
            text = f"{canary.percent} % of {live.alias} go to {version}"
            self._tell("canary", text, round(canary.seconds - left_s), round(canary.seconds))
            self._sleep(min(_POLL_S, left_s))
            self._require_canary(live.alias, version)
        return ()

    def _require_canary(self, alias: str, version: str) -> None:
        if live_of(self._client, alias, version).canary == version:
            return
        newest: Mapping[str, Any] = next(iter(self._client.adapter(alias)["history"]), {})
        why = f": {newest['reason']}" if newest.get("reason") else ""
        raise CanaryFailed(
            f"{version} lost its part of {alias} while it was tried ({newest.get('kind', 'gone')} by {newest.get('who', 'nobody')}{why}): "
            "it is not let in"
        )

    def _gate_of(self, alias: str) -> str:
        return next((str(one["gate"]) for one in self._client.aliases() if one["name"] == alias), "")


def negative_lines(judgement: Judgement, remedies: Callable[[], Iterator[str]]) -> Iterator[str]:
    """What to change: against forgetting, in order; where the task itself is not better, where to look."""
    verdict = judgement.verdict
    if any(one.is_lost for one in verdict.general):
        yield "what helps against forgetting, in this order:"
        yield from remedies()
    elif not judgement.is_go and (verdict.task.is_lost or verdict.task.state == "undecided"):
        yield f"look at {verdict.task.name}: rows that contradict each other (forgegate data doctor), too few of them, too few epochs"


def keep(judgement: Judgement, document: Mapping[str, Any], folder: Path) -> None:
    """The evaluation as `forgegate evaluate` writes it, and the verdict. Raises OSError, ArtifactError."""
    write_all(judgement.evaluation, folder, document)
    with atomic_path(folder / VERDICT) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def suite_of(run: Path) -> Suite:
    """What a training run is held against where nobody names a suite: the rows that it held out, and on the demo model its skills.

    Raises RecipeUnusable, also where it held nothing out; DataError.
    """
    told = recipe_of(run) or {}
    data = told.get("data") or {}
    if told and not (data.get("eval_sources") or data.get("eval_share") or data.get("eval_rows")):
        raise RecipeUnusable(NO_HELD_OUT)
    return of_run(run)
