"""One endpoint held against the reference, check by check, to a verdict."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backends import artifacts
from backends.modelfolder import read_optional_json
from finetune.dataset.tokens import ModelTokens
from finetune.jsonchild import Tell, silent
from finetune.parity import causes, checks
from finetune.parity.cases import Case, choose
from finetune.parity.causes import Cause
from finetune.parity.checks import Check, Scores
from finetune.parity.heldout import HeldOut
from finetune.parity.reference import Reference, Rows, compute, rescaled
from finetune.parity.served import Answer, Endpoint, EndpointRefused, Model
from finetune.parity.tolerance import AUTO, TOLERANCES, Tolerance, by_base_error, named
from finetune.recipe.folders import digest_cache

NUM_ROWS = 20
_DIGITS = 12
_VERSION = re.compile(rf".+@[0-9a-f]{{{_DIGITS}}}")
State = Literal["holds", "fails", "unchecked"]
EXIT_CODES: Mapping[State, int] = {"holds": 0, "fails": 1, "unchecked": 3}
_DEFAULT = "BF16"
"""Where the base cannot be asked, so that its weights' format does not show."""
_NO_BODY = (400, 404, 405, 501)
_NO_SCORES = (*_NO_BODY, 422, 500)
"""llama-server calls it an error of its own to be asked for the echo of a prompt."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is held against what. `adapter` in PEFT's format, `base` the folder that it was trained on."""

    base: Path
    adapter: Path
    held_out: AbstractContextManager[HeldOut]
    num_rows: int = NUM_ROWS
    weights: str = AUTO
    device: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`version`: what answered, as the endpoint names it. Without log-probabilities nothing has been held against the reference that a
    wrong adapter could not pass."""

    is_passed: bool
    model: str
    version: str
    weights: str
    num_cases: int
    num_held_out: int
    excluded: Mapping[str, int]
    checks: tuple[Check, ...]
    causes: tuple[Cause, ...]
    seconds: float

    @property
    def state(self) -> State:
        return "holds" if self.is_passed else "fails" if self.causes else "unchecked"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of the checks that the endpoint allows none of."""
        return tuple(check.name for check in self.checks if check.state == "skipped")

    def as_json(self) -> dict[str, Any]:
        return {"event": "parity", "state": self.state, **asdict(self)}


def measure(endpoint: Endpoint, order: Order, tell: Tell = silent) -> Verdict:
    """Raises TrainError, DataError, BackendError."""
    began = time.monotonic()
    model = endpoint.describe()
    tell("rows", "rendering held-out rows as in training", 0, 0)
    tokens = ModelTokens(order.base)
    with order.held_out as held_out:
        found = choose(held_out, tokens, order.num_rows, _context(order.base, model), model.is_literal)
    reference = compute(order.base, order.adapter, found.chosen, tell, order.device)
    done = _Comparison(endpoint, order, model, tokens, found.chosen, reference, tell).run()
    return Verdict(
        is_passed=not done.causes and _has_passed(done.checks, "scores"), model=model.name,
        version=model.root or model.name, weights=done.tolerance.weights,
        num_cases=len(found.chosen), num_held_out=found.num_rows, excluded=found.excluded, checks=done.checks,
        causes=done.causes, seconds=round(time.monotonic() - began, 2),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Done:
    checks: tuple[Check, ...]
    causes: tuple[Cause, ...]
    tolerance: Tolerance


class _Comparison:
    """The checks in their order: each asks the endpoint for what it needs."""

    def __init__(
        self, endpoint: Endpoint, order: Order, model: Model, tokens: ModelTokens, cases: Sequence[Case],
        reference: Reference, tell: Tell,
    ) -> None:  # fmt: skip
        self._endpoint, self._order, self._model, self._tokens = endpoint, order, model, tokens
        self._cases, self._reference, self._tell = cases, reference, tell
        self._causes: dict[str, Cause] = {}

    def run(self) -> _Done:
        ids = self._ids()
        tolerance, scores = self._scores()
        answers = self._answers()
        if ids is None:
            ids = checks.check_lengths(self._cases, answers)
            self._causes["ids"] = causes.of_lengths()
        ends = checks.check_ends(self._cases, self._reference.answers, answers, self._tokens.text, tolerance)
        self._causes["ends"] = causes.of_ends(
            2 * int(ends.details.get("num_endless_in_reference", 0)) > len(self._cases)
        )
        greedy = checks.check_greedy(self._cases, self._reference.answers, answers, self._tokens.text, tolerance)
        self._causes["greedy"] = causes.of_greedy()
        found = (ids, scores, ends, greedy)
        return _Done(found, causes.found(found, self._causes), tolerance)

    def _ids(self) -> Check | None:
        """None where the endpoint renders nothing for us."""
        if self._model.capabilities and "tokenize" not in self._model.capabilities:
            return None
        served: list[list[int]] = []
        try:
            for number, case in enumerate(self._cases):
                self._tell("ids", "asking how it renders the prompts", number, len(self._cases))
                served.append(self._endpoint.tokenize(case.messages))
        except EndpointRefused as exc:
            if exc.status not in _NO_BODY:
                raise
            return None
        if not all(served):  # llama-server's /tokenize takes no messages, and says so by an empty list
            return None
        check = checks.check_ids(self._cases, served, self._tokens.text)
        if check.state == "fail":
            self._causes["ids"] = causes.of_ids(self._cases, served, self._tokens.tokenizer.bos_token_id)
        return check

    def _scores(self) -> tuple[Tolerance, Check]:
        self._tell("scores", "asking for log-probabilities of held-out answers", 0, 2)
        texts = [case.ids for case in self._cases]
        try:
            served = _rows(self._endpoint.scores(self._model.name, texts))
            self._tell("scores", "asking for those of the base", 1, 2)
            base = _rows(self._endpoint.scores(self._model.parent, texts)) if self._model.parent else None
        except EndpointRefused as exc:
            if exc.status not in _NO_SCORES:
                raise
            return named(_DEFAULT), Check(
                "scores", "skipped", f"the endpoint gives no log-probabilities of a prompt: {exc}"
            )
        scores = Scores(self._reference.base, self._reference.adapter, served, base)
        tolerance = self._tolerance(scores)
        check = checks.check_scores(self._cases, scores, tolerance)
        if check.state == "fail":
            wrong = rescaled(self._order.base, self._order.adapter, self._cases, self._tell, self._order.device)
            self._causes["scores"] = causes.of_scores(scores, wrong, self._is_same_base())
        elif self._order.weights == AUTO and self._is_same_base() is False:
            check = checks.on_other_base(check)
            self._causes["scores"] = causes.of_digest()
        return tolerance, check

    def _tolerance(self, scores: Scores) -> Tolerance:
        if self._order.weights != AUTO:
            return named(self._order.weights)
        if scores.base_error is None:
            return named(_DEFAULT)
        return by_base_error(scores.base_error) or TOLERANCES[-1]

    def _is_same_base(self) -> bool | None:
        """By the digest of its weights; None where the endpoint tells none, or serves a merged model, which hides its base."""
        told = (self._endpoint.describe(self._model.parent) if self._model.parent else self._model).root
        if not _VERSION.fullmatch(told):
            return None
        digest = artifacts.source_digest(self._order.base, digest_cache()).removeprefix("sha256:")
        return told.endswith(f"@{digest[:_DIGITS]}") or (False if self._model.parent else None)

    def _answers(self) -> list[Answer]:
        found = []
        for number, case in enumerate(self._cases):
            self._tell("answers", "asking for greedy answers", number, len(self._cases))
            found.append(self._endpoint.answer(case.messages, case.budget))
        return found


def _has_passed(found: Sequence[Check], name: str) -> bool:
    return any(check.name == name and check.state == "pass" for check in found)


def _context(base: Path, served: Model) -> int:
    """What both can read."""
    config = read_optional_json(base / "config.json")
    inner = config.get("text_config")
    sizes = {**config, **inner} if isinstance(inner, dict) else config
    known = int(sizes.get("max_position_embeddings") or 2048)
    return min(known, served.max_context or known)


def _rows(rows: Sequence[Sequence[float]]) -> Rows:
    return tuple(tuple(row) for row in rows)
