"""Variants: asked for many requests at once, within a budget, and sifted.

    next request --ask--> reply --journal--> sift: language, novelty --> accepted --doctor--> rows

Which seeds a request shows depends on its number only, and what is accepted on the journal's order only: a run that was cut off goes on
as if it had not been.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from finetune.dataset.text import language
from finetune.evaluation.items import Kind
from finetune.variants.journal import Journal, Reply
from finetune.variants.novelty import Pool
from finetune.variants.prompting import Pair, asked_apart, messages, read, response_format
from finetune.variants.seeds import Seeds, Shots

UNUSABLE, LANGUAGE, SIMILAR = "unusable", "language", "similar"
MAX_SAID = 300
BYTES_PER_TOKEN = 3
"""Where the endpoint does not count."""
_Answers = Literal["together", "apart"]


class Asks(Protocol):
    """`finetune.evaluation.asking.Asker`."""

    async def ask(self, model: str, kind: Kind, request: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides what is asked."""

    model: str
    num_shots: int = 3
    num_each: int = 4
    """Variants that one request asks for."""
    answers: _Answers = "together"
    temperature: float = 1.0
    max_tokens: int = 1024
    seed: int = 0
    has_schema: bool = False
    """Whether the endpoint is asked to hold the model to the form of a reply."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Of the whole run, what an earlier part of it took included. No request is begun once one of them is reached."""

    rows: int
    requests: int
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    system: str
    question: str
    answer: str
    seeds: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """A row in ChatML's form, and which rows it was made after."""
        said = (("system", self.system), ("user", self.question), ("assistant", self.answer))
        return {"messages": [{"role": role, "content": text} for role, text in said if text], "seeds": [*self.seeds]}


@dataclass(slots=True)
class Sieve:
    """What of the replies is accepted, in their order."""

    seeds: Seeds
    settings: Settings
    pool: Pool
    accepted: list[Variant] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    num_made: int = 0
    num_tokens: int = 0

    def take(self, reply: Reply) -> None:
        shots = self.seeds.shots(reply.request, self.settings.num_shots, self.settings.seed)
        self.num_tokens += reply.num_tokens
        self.num_made += len(reply.pairs) + reply.num_unusable
        self.left_out[UNUSABLE] += reply.num_unusable
        for pair in reply.pairs:
            if fault := self._fault(pair, shots):
                self.left_out[fault] += 1
            else:
                self.pool.add(pair.question)
                self.accepted.append(Variant(shots.system, pair.question, pair.answer, reply.seeds))

    def _fault(self, pair: Pair, shots: Shots) -> str:
        """Empty where there is none."""
        spoken = {seed.language for seed in shots.seeds} - {""}
        answered = {language(seed.answer) for seed in shots.seeds} - {""}
        if not pair.answer:
            return UNUSABLE
        if _is_foreign(pair.question, spoken) or _is_foreign(pair.answer, answered):
            return LANGUAGE
        return SIMILAR if self.pool.has_like(pair.question) else ""


def _is_foreign(text: str, languages: set[str]) -> bool:
    """What has too few letters to tell is in any language."""
    found = language(text)
    return bool(found and languages) and found not in languages


class Maker:
    """One run's requests."""

    def __init__(self, asker: Asks, sieve: Sieve, journal: Journal, budget: Budget, at_a_time: int) -> None:
        self._asker = asker
        self._sieve = sieve
        self._journal = journal
        self._budget = budget
        self._at_a_time = at_a_time
        self._answered = {reply.request for reply in journal.replies}
        self._next = 0
        self._num_begun = len(journal.replies)
        for reply in journal.replies:
            sieve.take(reply)

    @property
    def num_requests(self) -> int:
        return len(self._journal.replies)

    @property
    def is_spent(self) -> bool:
        """Whether requests or tokens have run out."""
        tokens = self._budget.tokens
        return self._num_begun >= self._budget.requests or (tokens is not None and self._sieve.num_tokens >= tokens)

    async def make(self, num_wanted: int, tell: Callable[[int, int], None]) -> None:
        """Until so many variants are accepted, or the budget is spent. Raises EndpointFailed; what was answered is in the journal."""
        tasks = [asyncio.create_task(self._work(num_wanted, tell)) for _ in range(self._at_a_time)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, num_wanted: int, tell: Callable[[int, int], None]) -> None:
        while len(self._sieve.accepted) < num_wanted and not self.is_spent:
            number = self._take_number()
            reply = await self._ask(number)
            self._journal.add(reply)
            self._sieve.take(reply)
            tell(len(self._sieve.accepted), self.num_requests)

    def _take_number(self) -> int:
        while self._next in self._answered:
            self._next += 1
        self._answered.add(self._next)
        self._num_begun += 1
        return self._next

    async def _ask(self, number: int) -> Reply:
        settings = self._sieve.settings
        shots = self._sieve.seeds.shots(number, settings.num_shots, settings.seed)
        with_answers = settings.answers == "together"
        told = messages(shots, settings.num_each, with_answers)
        form = response_format(settings.num_each, with_answers) if settings.has_schema else None
        text, num_tokens = await self._said(told, settings.temperature, settings.seed + number, form)
        pairs, num_unusable = read(text, with_answers)
        said = "" if pairs else text[:MAX_SAID]
        if not with_answers:
            pairs, num_more = await self._answer(shots, pairs)
            num_tokens += num_more
        return Reply(number, tuple(seed.number for seed in shots.seeds), num_tokens, tuple(pairs), num_unusable, said)

    async def _answer(self, shots: Shots, pairs: Sequence[Pair]) -> tuple[list[Pair], int]:
        """Greedy, one after the other: the number of requests at a time is bounded."""
        answered, num_tokens = [], 0
        for pair in pairs:
            text, num_more = await self._said(asked_apart(shots, pair.question), 0.0, self._sieve.settings.seed)
            answered.append(Pair(pair.question, text.strip()))
            num_tokens += num_more
        return answered, num_tokens

    async def _said(
        self, told: Sequence[Mapping[str, str]], temperature: float, seed: int, form: Mapping[str, Any] | None = None
    ) -> tuple[str, int]:
        settings = self._sieve.settings
        request = {"messages": list(told), "temperature": temperature, "seed": seed, "max_tokens": settings.max_tokens}
        request |= {"response_format": form} if form else {}
        answer = (await self._asker.ask(settings.model, "chat", request)).answer
        if answer.num_prompt_tokens is not None and answer.num_tokens is not None:
            return str(answer.text), answer.num_prompt_tokens + answer.num_tokens
        num_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in told)
        return str(answer.text), (num_bytes + len(answer.text.encode("utf-8", "replace"))) // BYTES_PER_TOKEN
