"""What is asked: seeded lists of requests, made before the clock starts. The same seed gives the same bytes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from benchmarks.traffic.adapters import AdapterMix
from benchmarks.traffic.cancellations import Cancel, Cancellations
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.lengths import Length, LengthDraw
from benchmarks.traffic.pauses import Pause
from benchmarks.traffic.prefixes import SharedPrefix
from benchmarks.traffic.prompts import Prompt, PromptForm, Writer, read_prompts
from benchmarks.traffic.request import CHAT_PATH, Request
from benchmarks.traffic.sessions import Place, places
from benchmarks.traffic.traces import BLOCK_TOKENS, Trace, TraceRow

__all__ = ["Endpoint", "Length", "PromptForm", "Request", "Workload", "WorkloadError", "read_prompts"]

_PROMPT, _ANSWER, _NO_PAUSE = Length(32, 32), Length(128, 128), Pause()


class Endpoint(StrEnum):
    """Which API is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"

    @property
    def path(self) -> str:
        """Path under the server's root."""
        return CHAT_PATH if self is Endpoint.CHAT else f"/v1/{self.value}"


@dataclass(frozen=True, slots=True)
class Workload:
    """From which requests are drawn. `extra` is merged into every body, last."""

    model: str
    endpoint: Endpoint = Endpoint.CHAT
    input_tokens: LengthDraw = _PROMPT
    output_tokens: LengthDraw = _ANSWER
    prompt_form: PromptForm = PromptForm.WORDS
    vocab_size: int = 4096
    """Exclusive upper end of the random ids; the lowest 260 are left out, where vocabularies keep control tokens."""
    prompts: tuple[Any, ...] = ()
    """Instead of generated ones: texts, or lists of chat messages."""
    ignore_eos: bool = True
    min_tokens: bool = False
    temperature: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    prefix: SharedPrefix | None = None
    mix: AdapterMix | None = None
    """Names to ask for instead of `model`, which is the mix's base."""
    turns: LengthDraw | None = None
    """Requests of a session; None sends requests that know nothing of each other."""
    pause: Pause = _NO_PAUSE
    cancellations: Cancellations | None = None

    def __post_init__(self) -> None:
        if self.prompt_form is PromptForm.IDS and self.endpoint is Endpoint.CHAT:
            raise WorkloadError("prompts of token ids need the completions endpoint: chat takes text")
        Writer(self.prompt_form, self.vocab_size)
        if self.endpoint is not Endpoint.CHAT and any(not isinstance(prompt, str) for prompt in self.prompts):
            raise WorkloadError("a prompt of chat messages needs the chat endpoint")
        if self.endpoint is not Endpoint.CHAT and self.turns is not None:
            raise WorkloadError("sessions of several turns need the chat endpoint")
        if self.endpoint is Endpoint.EMBEDDINGS and self.cancellations is not None:
            raise WorkloadError("embeddings come in one piece: cancellations need the chat or completions endpoint")

    def requests(self, num: int, seed: str) -> list[Request]:
        """`num` requests; different seeds share no generated prompt, so that no prefix cache answers for the engine."""
        return self._drawn(places(self.turns, random.Random(f"{seed}/turns"), num=num), seed)

    def sessions(self, num: int, seed: str) -> list[Request]:
        """All requests of `num` sessions; without `turns` these are `num` requests."""
        return self._drawn(places(self.turns, random.Random(f"{seed}/turns"), num_sessions=num), seed)

    def replay(self, trace: Trace, seed: str) -> list[Request]:
        """One request for each of the trace's rows, due when it was, as long as it was; equal blocks are equal text.

        Raises WorkloadError for what a trace leaves no room for.
        """
        if self.turns is not None or self.prompts:
            raise WorkloadError("a trace says itself what is asked when: turns and prompts of a file do not go with it")
        seats = [Place(row.session, 0, True) for row in trace.rows]
        return [
            replace(request, due_s=row.due_s)
            for request, row in zip(self._drawn(seats, seed, trace.rows), trace.rows, strict=True)
        ]

    def _drawn(self, seats: Sequence[Place], seed: str, rows: Sequence[TraceRow] = ()) -> list[Request]:
        rng = random.Random(seed)
        order = list(self.prompts)
        rng.shuffle(order)
        names, companions = self._names(seats, seed), _Companions(self, seed)
        requests = []
        for index, (seat, name) in enumerate(zip(seats, names, strict=True)):
            if rows:
                max_tokens, prompt = rows[index].output_tokens, self._recorded(rows[index], rng, seed)
            else:
                max_tokens = self.output_tokens.draw(rng)
                prompt = order[index % len(order)] if order else self._writer.write(self.input_tokens.draw(rng), rng)
            requests.append(self._request(index, prompt, max_tokens, seat, name, companions))
        return requests

    @property
    def _writer(self) -> Writer:
        return Writer(self.prompt_form, self.vocab_size)

    def _names(self, seats: Sequence[Place], seed: str) -> Iterator[str | None]:
        """One for each seat; all turns of a session ask for the same."""
        num_sessions = sum(seat.turn == 0 for seat in seats)
        drawn = iter(
            self.mix.draws(num_sessions, random.Random(f"{seed}/adapters")) if self.mix else [None] * num_sessions
        )
        name = None
        for seat in seats:
            name = next(drawn) if seat.turn == 0 else name
            yield name

    def _recorded(self, row: TraceRow, rng: random.Random, seed: str) -> Prompt:
        num = max(1, row.input_tokens)
        if not row.block_ids:
            return self._writer.write(num, rng)
        sizes = [min(BLOCK_TOKENS, num - start) for start in range(0, num, BLOCK_TOKENS)]
        blocks = zip(sizes, row.block_ids, strict=True)
        return self._writer.join(
            [self._writer.write_known(size, f"{seed}/block/{block_id}") for size, block_id in blocks]
        )

    def _request(
        self, index: int, prompt: Any, max_tokens: int, seat: Place, name: str | None, companions: "_Companions"
    ) -> Request:
        prefix, pause_s, cancel = companions.draw(is_first=seat.turn == 0)
        body: dict[str, Any] = {"model": name or self.model, **self._input(prompt, prefix, seat)}
        is_exact = False
        if self.endpoint is Endpoint.EMBEDDINGS:
            max_tokens = 0
        else:
            body |= {"max_tokens": max_tokens, **self._sampling(max_tokens)}
            is_exact = self.ignore_eos or self.min_tokens
        return Request(
            index,
            orjson.dumps(body | self.extra),
            max_tokens,
            is_exact,
            self.endpoint.path,
            pause_s=pause_s,
            adapter=(name or self.model) if self.mix else None,
            session=seat.session,
            turn=seat.turn,
            cancel=cancel,
        )

    def _sampling(self, max_tokens: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignore_eos:
            fields["ignore_eos"] = True
        if self.min_tokens:
            fields["min_tokens"] = max_tokens
        return fields

    def _input(self, prompt: Any, prefix: Prompt | None, seat: Place) -> dict[str, Any]:
        if self.endpoint is not Endpoint.CHAT:
            whole = prompt if prefix is None else self._writer.join([prefix, prompt])
            return {"prompt" if self.endpoint is Endpoint.COMPLETIONS else "input": whole}
        messages = list(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        if seat.turn:
            return {"messages": messages[-1:]}  # what a user adds; the rest of a given chat would start it anew
        return {"messages": messages if prefix is None else _with_system(messages, str(prefix))}


class _Companions:
    """What comes with requests, each from a stream of its own."""

    def __init__(self, workload: Workload, seed: str) -> None:
        self._workload = workload
        self._seed = seed
        self._writer = Writer(workload.prompt_form, workload.vocab_size)
        self._groups, self._pauses, self._cancels = (
            random.Random(f"{seed}/{name}") for name in ("groups", "pauses", "cancels")
        )

    def draw(self, *, is_first: bool) -> tuple[Prompt | None, float, Cancel | None]:
        """Prefix (of a session's first request only), pause in seconds, and when the client leaves."""
        workload = self._workload
        group = workload.prefix.draw_group(self._groups) if workload.prefix and is_first else None
        # The seed is in the prefix: another run starts with a cache that does not know it.
        key = f"{self._seed}/prefix/{group}"
        prefix = (
            self._writer.write_known(workload.prefix.num_tokens, key) if workload.prefix and group is not None else None
        )
        cancel = workload.cancellations.draw(self._cancels) if workload.cancellations else None
        return prefix, workload.pause.draw(self._pauses), cancel


def _with_system(messages: list[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """The prefix as the system message, or before the one that there is: templates take one only."""
    if messages[0].get("role") == "system":
        return [{**messages[0], "content": f"{prefix}\n{messages[0].get('content')}"}, *messages[1:]]
    return [{"role": "system", "content": prefix}, *messages]
