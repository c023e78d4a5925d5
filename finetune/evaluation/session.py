"""One endpoint's models asked many items at once: from what was answered before, else anew, and always by the same version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from finetune.errors import TrainError
from finetune.evaluation.asking import Asker
from finetune.evaluation.cache import Answers, key_of
from finetune.evaluation.items import Answer, Item
from finetune.evaluation.result import Model
from finetune.jsonchild import Tell
from finetune.parity.served import EndpointRefused

_TOOLS_HINT = (
    "; it has tools, which vLLM takes with options: {tool_call_parser: hermes}, or as the model's family calls them"
)
_PROBE = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}


class ModelChanged(TrainError):
    """Another version answers than the one that answered before."""


@dataclass(frozen=True, slots=True)
class Asked:
    answers: tuple[Answer, ...]
    """In the order of the items."""
    num_new: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Question:
    item: Item
    max_tokens: int
    seed: int


class Session:
    """Answers of a model whose version the endpoint does not tell are not taken from the cache: they may be another's."""

    def __init__(
        self, asker: Asker, cache: Answers, at_a_time: int, tell: Tell, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asker = asker
        self._cache = cache
        self._at_a_time = at_a_time
        self._tell = tell
        self._clock = clock

    async def resolve(self, model: str) -> str:
        """The version that answers now; empty where nobody says. Raises EndpointFailed."""
        return (await self._asker.ask(model, "chat", _PROBE)).resolved

    async def ask(self, model: Model, stage: str, questions: Sequence[Question]) -> Asked:
        """Raises EndpointFailed, EndpointRefused with the item that is refused, ModelChanged."""
        requests = [each.item.request(each.max_tokens, each.seed) for each in questions]
        keys = [
            key_of(model.resolved, each.item.kind, request) for each, request in zip(questions, requests, strict=True)
        ]
        found = [self._cache.get(key) if model.is_versioned else None for key in keys]
        waiting = [place for place, answer in enumerate(found) if answer is None]
        num_done = len(questions) - len(waiting)
        start = self._clock()

        async def work() -> None:
            nonlocal num_done
            while waiting:
                place = waiting.pop(0)
                answer = await self._one(model, questions[place].item, requests[place])
                found[place] = answer
                self._cache.add(keys[place], answer)
                num_done += 1
                self._tell(model.asked, stage, num_done, len(questions))

        num_new = len(waiting)
        self._tell(model.asked, stage, num_done, len(questions))
        await _together([work() for _ in range(min(self._at_a_time, num_new))])
        return Asked(tuple(answer for answer in found if answer is not None), num_new, self._clock() - start)

    async def _one(self, model: Model, item: Item, request: dict[str, object]) -> Answer:
        try:
            reply = await self._asker.ask(model.asked, item.kind, request)
        except EndpointRefused as exc:
            hint = _TOOLS_HINT if item.tools else ""
            raise EndpointRefused(f"{model.asked} refuses item {item.id}: {exc}{hint}", exc.status) from exc
        require_same(model, reply.resolved)
        return reply.answer


def require_same(model: Model, resolved: str) -> None:
    """Raises ModelChanged."""
    if model.is_versioned and resolved and resolved != model.resolved:
        raise ModelChanged(
            f"{model.asked} was {model.resolved} and is now answered by {resolved}: its alias moved, or splits its requests; name one "
            "version, NAME@DIGEST"
        )


async def _together(works: Sequence[Coroutine[object, object, None]]) -> None:
    """All of them; the first that fails ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
