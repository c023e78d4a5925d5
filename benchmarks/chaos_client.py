"""The clients of a chaos campaign: what they send, on which connections, and when they give up."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from benchmarks.chaos_verdict import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Api, Ending, judge
from benchmarks.client import Target
from benchmarks.http1 import Clock, Connection
from benchmarks.record import Failure, FailureKind

TIMEOUT_S = 60.0
"""A request that has not ended by then hangs."""
_TOPICS = (
    "the KV cache",
    "a gateway",
    "batching",
    "twelve and thirty",
    "the moon",
    "대한민국의 수도",
    "a recipe for bread",
)
_APIS = (CHAT, CHAT, COMPLETIONS, COMPLETIONS, MESSAGES, RESPONSES)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, ended."""

    kind: str
    ending: Ending
    detail: str
    """Error code, or what is wrong."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to send."""

    api: Api
    is_stream: bool
    body: bytes
    cancel_after_s: float | None

    @property
    def kind(self) -> str:
        """For the table."""
        return f"{self.api.name}, {'streamed' if self.is_stream else 'whole'}"


def make_ask(dice: random.Random, model: str) -> Ask:
    """Any API, streamed or not, short and long; one in six is given up by its client on the way."""
    api, is_stream = dice.choice(_APIS), dice.random() < 0.65
    text = f"Request {dice.randrange(10**6)}: tell me about {dice.choice(_TOPICS)}."
    max_tokens = dice.choice((1, 8, 32, 96, 160))
    fields: dict[str, Any] = {"model": model, "stream": is_stream}
    if api is RESPONSES:
        fields |= {"input": text, "max_output_tokens": max_tokens}
    else:
        prompt = {"prompt": text} if api is COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
        fields |= {"max_tokens": max_tokens, **prompt}
    if api in (CHAT, COMPLETIONS):
        fields |= {"ignore_eos": True, "seed": dice.randrange(10**6)}
    cancel_after_s = dice.uniform(0.0, 0.6) if dice.random() < 1 / 6 else None
    return Ask(api, is_stream, orjson.dumps(fields), cancel_after_s)


class Line(Connection):
    """A connection that knows its own port, by which the killer finds out whose it is."""

    def __init__(self, clock: Clock, condemned: Mapping[int, float], dialled_s: float) -> None:
        super().__init__(clock)
        self._condemned = condemned
        self._dialled_s = dialled_s
        self._port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._port = transport.get_extra_info("sockname")[1]

    @property
    def is_condemned(self) -> bool:
        """Whether its worker was killed or stopped since it was dialled; its port may have had other owners before."""
        return self._condemned.get(self._port, 0.0) >= self._dialled_s


class Traffic:
    """Clients that send one request after the other until told to stop; every outcome is kept."""

    def __init__(self, target: Target, model: str, seed: int) -> None:
        self._target = target
        self._model = model
        self._seed = seed
        self._clock = asyncio.get_running_loop().time
        self._condemned: dict[int, float] = {}
        """Ports whose connections were held by a worker when it was struck, and when that was."""
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self.outcomes: list[Outcome] = []
        self.num_sent = 0

    def start(self, num_clients: int) -> None:
        """All of them, from now on."""
        self._tasks = [asyncio.create_task(self._run(random.Random(f"{self._seed}/{n}"))) for n in range(num_clients)]

    async def stop(self) -> None:
        """No further request; returns when the last one has ended."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    def condemn(self, ports: set[int]) -> None:
        """The connections from these ports are held by a worker that is about to die."""
        self._condemned.update(dict.fromkeys(ports, self._clock()))

    async def ask_once(self, num: int) -> list[Outcome]:
        """The outcomes of `num` requests, sent side by side on new connections, none of them cancelled."""
        dice = random.Random(self._seed + 1)
        asks = [make_ask(dice, self._model) for _ in range(num)]
        return await asyncio.gather(*(self._ask_alone(replace(ask, cancel_after_s=None)) for ask in asks))

    async def _ask_alone(self, ask: Ask) -> Outcome:
        outcome, line = await self._ask(ask, None)
        if line is not None:
            line.close()
        return outcome

    async def _run(self, dice: random.Random) -> None:
        line: Line | None = None
        while not self._is_over:
            outcome, line = await self._ask(make_ask(dice, self._model), line)
            self.outcomes.append(outcome)
            if line is not None and (not line.is_reusable or dice.random() < 0.2):
                line.close()
                line = None
            await asyncio.sleep(dice.uniform(0.5, 1.5) if outcome.ending is Ending.HTTP_ERROR else dice.expovariate(20))
        if line is not None:
            line.close()

    async def _ask(self, ask: Ask, line: Line | None) -> tuple[Outcome, Line | None]:
        """Send one request on `line`, where that is still open, else on a new connection."""
        start_s = self._clock()
        self.num_sent += 1
        if line is None or not line.is_reusable:
            try:
                line = await self._connect()
            except OSError as exc:
                return Outcome(ask.kind, Ending.VIOLATION, f"no connection: {exc}", self._clock() - start_s), None
        ending, detail = await self._exchange(ask, line)
        return Outcome(ask.kind, ending, detail, self._clock() - start_s), line

    async def _exchange(self, ask: Ask, line: Line) -> tuple[Ending, str]:
        waiter = line.send(self._target.head("POST", ask.api.path, len(ask.body)) + ask.body)
        patience_s = TIMEOUT_S if ask.cancel_after_s is None else ask.cancel_after_s
        await asyncio.wait({waiter}, timeout=patience_s)
        if not waiter.done():
            line.abort(Failure(FailureKind.TIMEOUT, f"not complete within {patience_s:g} s"))
            if ask.cancel_after_s is not None:
                return Ending.CANCELLED, ""
        return judge(ask.api, waiter.result(), ask.is_stream, line.is_condemned)

    async def _connect(self) -> Line:
        loop = asyncio.get_running_loop()
        dialled_s = self._clock()  # its worker may have it, and be struck, before we know that it stands
        _, line = await loop.create_connection(
            lambda: Line(self._clock, self._condemned, dialled_s), self._target.host, self._target.port
        )
        return line
