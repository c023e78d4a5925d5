"""The ways in which an engine is asked the same prompts, and the asking."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from benchmarks.client import Client
from benchmarks.invariance_record import NUM_ALTERNATIVES, Answer, InvarianceError, Prompt, PromptSet, answer_of
from benchmarks.transcript import error_message

_PATH = "/v1/completions"
_SHARE_OF_PROMPTS = 2 / 3
"""Of the requests that a stream sends while prompts are left; the others are neighbours."""
_NEIGHBOUR_PROMPT = (4, 400)
"""Tokens: long ones are computed in chunks beside the decoding of others, and leave holes in the cache."""
_MIN_REUSED = 0.5
_LOWEST_ID = 300
"""Below it vocabularies keep bytes and control tokens."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of asking."""

    name: str
    words: str
    is_crowded: bool = False
    """Inside a full batch, whose other requests are prompts of the same set and random neighbours."""
    is_primed: bool = False
    """Another request with the same beginning, or the conversation's earlier turn, is answered before."""
    num_answers: int = 1
    """Asked for at once; the last one counts."""
    num_places: int = 1
    """Of the batch that a stream takes: one for each answer, or one more where what was computed before waits."""
    is_cramped: bool = False
    """In a cache with room for little more than the longest request."""

    def engine_flags(self, room: int) -> tuple[str, ...]:
        """Of the engine that this mode needs; the longest request takes `room` tokens."""
        cache = ("--prefix-cache", str(self.is_primed).lower())
        return (*cache, "--n-ctx", str(room)) if self.is_cramped else cache

    def num_streams(self, num_places: int) -> int:
        """Requests at a time in a batch of so many places."""
        return max(1, num_places // self.num_places) if self.is_crowded else 1


MODES = (
    Mode("alone", "one request at a time, nothing reused"),
    Mode("batch", "{streams} requests at any time, a third of them random neighbours", is_crowded=True),
    Mode(
        "copied",
        "the second of two answers to one prompt, {streams} such requests at any time",
        is_crowded=True,
        num_answers=2,
        num_places=2,
    ),
    Mode(
        "prefix",
        "one at a time, after a request with the same beginning or the earlier turn of the conversation",
        is_primed=True,
    ),
    Mode("prefix-batch", "the same, {streams} at any time", is_crowded=True, is_primed=True, num_places=2),
    Mode(
        "preempted",
        "{streams} at any time with room for a few: requests give their cells back and are computed again",
        is_crowded=True,
        is_cramped=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Asking:
    """What all modes share."""

    model: str
    num_tokens: int
    num_places: int
    """Of a full batch."""
    seed: int


@dataclass(frozen=True, slots=True)
class Run:
    """The answers of one mode, in the order of the prompts, and the signs that it was what it says."""

    mode: Mode
    answers: tuple[Answer, ...]
    prompt_lengths: tuple[int, ...]
    duration_s: float
    num_neighbours: int
    num_preempted: int | None
    """None where the server does not count them."""

    @property
    def reused_share(self) -> float:
        """Of the prompts' tokens, those found in the prefix cache."""
        return sum(answer.num_cached for answer in self.answers) / sum(self.prompt_lengths)

    @property
    def faults(self) -> list[str]:
        """Why the run does not show what its mode is for."""
        name, reused = self.mode.name, self.reused_share
        if self.mode.is_primed and reused < _MIN_REUSED:
            return [f"{name}: only {reused:.0%} of the prompts' tokens were reused"]
        if not self.mode.is_primed and reused:
            return [f"{name}: {reused:.1%} of the prompts' tokens were reused: switch the prefix cache off"]
        if self.mode.is_cramped and not self.num_preempted:
            return [f"{name}: no request was preempted"]
        return []


def room_of(prompts: PromptSet, num_tokens: int) -> int:
    """Tokens that the longest request takes, prompt and answer."""
    return max(_NEIGHBOUR_PROMPT[1], *(len(prompt.ids) for prompt in prompts.prompts)) + num_tokens


async def run_mode(client: Client, mode: Mode, prompts: PromptSet, asking: Asking) -> Run:
    """Ask all prompts in this mode. Raises InvarianceError when one is not answered."""
    began_s, preempted = client.clock(), await _num_preempted(client)
    crowd = _Crowd(client, mode, prompts, asking)
    try:
        async with asyncio.TaskGroup() as streams:
            for _ in range(mode.num_streams(asking.num_places)):
                streams.create_task(crowd.stream())
    except* InvarianceError as group:
        raise _first(group) from None
    after = await _num_preempted(client)
    answers = tuple(crowd.answers[prompt.index] for prompt in prompts.prompts)
    num_preempted = None if after is None or preempted is None else after - preempted
    lengths = tuple(len(prompt.ids) for prompt in prompts.prompts)
    return Run(mode, answers, lengths, client.clock() - began_s, crowd.num_neighbours, num_preempted)


def priming(prompt: Prompt, others: Sequence[Prompt], rng: Random) -> tuple[list[int], bool]:
    """The ids of the request that comes before, and whether it is a turn that ends by itself.

    It asks the conversation's earlier turn where there is one, else it shares at least the first half with `prompt`.
    """
    if prompt.turn:
        return list(prompt.ids[: prompt.turn]), True
    length = len(prompt.ids)
    shared = rng.randint((length + 1) // 2, length - 1)
    return [*prompt.ids[:shared], *rng.choice(others).ids[shared:]], False


class _Crowd:
    """The streams of one run: each sends a prompt or a neighbour, one after the other, until all prompts are answered."""

    def __init__(self, client: Client, mode: Mode, prompts: PromptSet, asking: Asking) -> None:
        self._client, self._mode, self._prompts, self._asking = client, mode, prompts, asking
        self._random = Random(f"{asking.seed}/{mode.name}")
        left = list(prompts.prompts)
        if mode.is_crowded:
            self._random.shuffle(left)
        self._left = deque(left)
        self.answers: dict[int, Answer] = {}
        self.num_neighbours = 0

    async def stream(self) -> None:
        """The batch stays full to the last answer: a stream without a prompt sends neighbours."""
        while len(self.answers) < len(self._prompts.prompts):
            if self._left and (not self._mode.is_crowded or self._random.random() < _SHARE_OF_PROMPTS):
                prompt = self._left.popleft()
                self.answers[prompt.index] = await self._ask(prompt)
            else:
                await self._neighbour()

    async def _ask(self, prompt: Prompt) -> Answer:
        asking = self._asking
        if self._mode.is_primed:
            ids, is_turn = priming(prompt, self._prompts.prompts, Random(f"{asking.seed}/{prompt.index}"))
            await self._post(ids, max_tokens=asking.num_tokens if is_turn else 4, ignore_eos=not is_turn)
        wanted: dict[str, Any] = {"ignore_eos": True, "logprobs": NUM_ALTERNATIVES, "n": self._mode.num_answers}
        body = await self._post(list(prompt.ids), max_tokens=asking.num_tokens, **wanted)
        return answer_of(body, self._mode.num_answers - 1, asking.num_tokens, self._prompts.end_tokens)

    async def _neighbour(self) -> None:
        rng = self._random
        ids = [rng.randrange(_LOWEST_ID, self._prompts.vocab_size) for _ in range(rng.randint(*_NEIGHBOUR_PROMPT))]
        self.num_neighbours += 1
        await self._post(ids, max_tokens=rng.randint(1, self._asking.num_tokens), ignore_eos=True)

    async def _post(self, ids: list[int], **fields: Any) -> bytes:
        body = {"model": self._asking.model, "prompt": ids, "temperature": 0, **fields}
        exchange = await self._client.post(_PATH, orjson.dumps(body))
        if exchange.failure is not None:
            raise InvarianceError(f"{self._mode.name}: a request failed: {exchange.failure.detail}")
        if exchange.status != 200:
            raise InvarianceError(f"{self._mode.name}: answered {exchange.status}: {error_message(exchange.body)}")
        return exchange.body


async def _num_preempted(client: Client) -> int | None:
    exchange = await client.get("/metrics")
    found = re.search(rb"^forgegate_engine_preemptions_total (\S+)$", exchange.body, re.MULTILINE)
    return int(float(found[1])) if found else None


def _first(group: BaseExceptionGroup[InvarianceError]) -> InvarianceError:
    first = group.exceptions[0]
    return first if isinstance(first, InvarianceError) else _first(first)
