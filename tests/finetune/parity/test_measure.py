"""From rows to a verdict, against an endpoint and a reference that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR
from finetune.dataset.tokens import ModelTokens
from finetune.parity import cases
from finetune.parity import measure as measuring
from finetune.parity.cases import Case
from finetune.parity.heldout import of_file
from finetune.parity.measure import Order, Verdict, measure
from finetune.parity.reference import Greedy, Reference
from finetune.parity.served import Endpoint
from finetune.parity.tolerance import AUTO
from tests.finetune.parity.test_cases import chat, rows_file

pytestmark = pytest.mark.torch
HOST = ADAPTERS_DIR / "host"
NOISE = {"F16": 0.01, "Q4_K_M": 0.3}
"""Nat: what a format does to the base."""
QUESTIONS = ("Where is Oslo?", "Who are you?", "Why is it dark?", "How long is a day?")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def tokens() -> ModelTokens:
    return ModelTokens(TARGET_DIR)


def base_score(token: int, place: int) -> float:
    return -1 - (token * 31 + place * 17) % 97 / 97


def change(token: int, place: int) -> float:
    """By the adapter."""
    return (token * 13 + place * 7) % 89 / 44 - 1


def noise(token: int, place: int) -> float:
    """Of root mean square 1."""
    return 1.0 if (token + place) % 2 else -1.0


def reference(base: Path, adapter: Path, chosen: Sequence[Case], tell: object, device: str) -> Reference:
    rows = [list(enumerate(case.ids))[1:] for case in chosen]
    plain = tuple(tuple(base_score(token, place) for place, token in row) for row in rows)
    changed = tuple(tuple(base_score(token, place) + change(token, place) for place, token in row) for row in rows)
    answers = tuple(Greedy(case.ids[case.first :], (5.0,) * case.num_answer_tokens, has_ended=True) for case in chosen)
    return Reference(plain, changed, answers)


class Stub:
    """An endpoint that serves the reference's adapter on a base of some format."""

    def __init__(self, tokens: ModelTokens, answers: dict[str, str], weights: str, base: Json, **model: Any) -> None:
        self._tokens, self._answers, self._noise = tokens, answers, NOISE[weights]
        self._models: dict[str, Json] = {
            "demo": base,
            "support": {"parent": "demo", "root": "support@0123456789ab", **model},
        }
        self.no_scores: tuple[int, Json] | None = None
        """A status and what is answered in place of log-probabilities."""
        self.no_tokens = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.startswith("/v1/models/"):
            return httpx.Response(200, json=self._models[path.rpartition("/")[2]])
        if path == "/v1/completions" and self.no_scores:
            return httpx.Response(self.no_scores[0], json=self.no_scores[1])
        answers: dict[str, Callable[[Json], Json]] = {
            "/tokenize": self._tokenized, "/v1/completions": self._scored, "/v1/chat/completions": self._answered,
        }  # fmt: skip
        return httpx.Response(200, json=answers[path](json.loads(request.content)))

    def _tokenized(self, body: Json) -> Json:
        if self.no_tokens:
            return {"tokens": []}
        made = self._tokens.tokenizer.apply_chat_template(
            body["messages"], return_dict=True, add_generation_prompt=True
        )
        return {"tokens": made["input_ids"]}

    def _scored(self, body: Json) -> Json:
        factor = float(body["model"] == "support")
        rows = [
            [base_score(t, p) + factor * change(t, p) + self._noise * noise(t, p) for p, t in enumerate(ids)]
            for ids in body["prompt"]
        ]
        return {
            "choices": [{"index": at, "logprobs": {"token_logprobs": [None, *row[1:]]}} for at, row in enumerate(rows)]
        }

    def _answered(self, body: Json) -> Json:
        text = self._answers[body["messages"][-1]["content"]]
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def base_of(digest: str = "") -> Json:
    return {"root": f"demo@{(digest or source_digest(TARGET_DIR).removeprefix('sha256:'))[:12]}"}


@pytest.fixture
def held(tmp_path: Path, tokens: ModelTokens, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verdict]:
    monkeypatch.setattr(measuring, "compute", reference)
    monkeypatch.setattr(measuring, "rescaled", lambda *_: {})
    answers = {question: f"I know {question}" for question in QUESTIONS} | {"Tell a story": "once " * 300}
    path = rows_file(tmp_path / "rows.jsonl", *(chat(*pair) for pair in answers.items()))

    def hold(
        weights: str = "F16", base: Json | None = None, said: str = AUTO, no_scores: tuple[int, Json] | None = None,
        no_tokens: bool = False, **model: Any,
    ) -> Verdict:  # fmt: skip
        stub = Stub(tokens, answers, weights, base or base_of(), **model)
        stub.no_scores, stub.no_tokens = no_scores, no_tokens
        with Endpoint("http://gpu:8080", "support", transport=httpx.MockTransport(stub)) as endpoint:
            return measure(endpoint, Order(TARGET_DIR, HOST, of_file(path), weights=said))

    return hold


def states(verdict: Verdict) -> Json:
    return {check.name: check.state for check in verdict.checks}


@pytest.mark.parametrize("weights", NOISE)
def test_what_is_right_holds_by_what_its_base_shows(held: Callable[..., Verdict], weights: str) -> None:
    verdict = held(weights)
    assert (verdict.state, verdict.weights, verdict.num_cases) == ("holds", weights, 5), verdict
    assert set(states(verdict).values()) == {"pass"}


@pytest.mark.parametrize(
    "said",
    [
        (404, {"error": {"message": "no such path"}}),
        (500, {"error": {"message": "Only no echo is supported"}}),  # llama-server
        (200, {"choices": [{"index": at, "text": "x"} for at in range(5)]}),  # who passes over echo and logprobs
        (200, {"choices": [{"index": at, "text": "x", "logprobs": None} for at in range(5)]}),
        (200, {"choices": [{"index": at, "logprobs": {"token_logprobs": [-0.5]}} for at in range(5)]}),
    ],
)
def test_without_log_probabilities_nothing_holds(held: Callable[..., Verdict], said: tuple[int, Json]) -> None:
    verdict = held(no_scores=said)
    assert states(verdict) == {"ids": "pass", "scores": "skipped", "ends": "pass", "greedy": "pass"}
    assert (verdict.is_passed, verdict.state, verdict.exit_code, verdict.causes) == (False, "unchecked", 3, ())


def test_who_renders_a_prompt_to_no_tokens_renders_none(held: Callable[..., Verdict]) -> None:
    """llama-server's /tokenize takes no messages, and answers what it does not know with an empty list."""
    verdict = held(no_tokens=True)
    assert (states(verdict)["ids"], verdict.state) == ("skipped", "holds")


def test_rows_fit_into_the_context_that_is_served(held: Callable[..., Verdict]) -> None:
    verdict = held(context_length=256)
    assert (verdict.state, verdict.num_cases, verdict.excluded) == ("holds", 4, {cases.LONG: 1})
    assert held(context_length=10**6).num_cases == 5


@pytest.mark.parametrize("weights", NOISE)
def test_another_base_does_not_pass_for_a_coarse_form_of_the_one_given(
    held: Callable[..., Verdict], weights: str
) -> None:
    verdict = held(weights, base_of("0" * 64))
    assert (verdict.state, states(verdict)["scores"]) == ("fails", "fail")
    assert [cause.name for cause in verdict.causes] == ["base"]
    assert "another fine-tune of the same one; name its own with --base" in verdict.causes[0].words
    assert verdict.checks[1].words.endswith("the served base has another digest than the one given")


def test_a_form_of_the_base_that_was_made_elsewhere_is_named(held: Callable[..., Verdict]) -> None:
    assert held("Q4_K_M", base_of("0" * 64), said="Q4_K_M").state == "holds"
    assert held("Q4_K_M", base_of("0" * 64), said="Q8_0").state == "fails"


def test_a_base_that_tells_no_digest_is_judged_by_what_it_shows(held: Callable[..., Verdict]) -> None:
    assert held(base={"root": "models/llama"}).state == "holds"  # twelve characters, and no version


def test_a_merged_model_hides_its_base(held: Callable[..., Verdict]) -> None:
    assert held(parent=None).state == "holds"
