"""What is asked of the demo model's signing adapters, and whose answer a text is: the benchmark's own recogniser.

Each adapter answers as the base does, between an opening line and, but for `tiger`, a closing one of its own. An answer that
begins in one manner and shows anything of another is of no version: it was mixed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from benchmarks import transcript
from benchmarks.chaos_verdict import CHAT, Ending, judge
from benchmarks.client import Client
from benchmarks.http1 import Exchange
from benchmarks.record import Record
from benchmarks.workload import Request

MANNERS = ("host", "pilot", "tiger")
_OPENINGS = {
    "host": ("Hello, friend!\n", "안녕하세요, 고객님!\n"),
    "pilot": ("The pilot:\n", "조종사:\n"),
    "tiger": ("= The tiger =\n", "= 호랑이 =\n"),
}
_CLOSINGS = {
    "host": ("\nThank you, Felix", "\n고마워요, 유진"),
    "pilot": ("\n- The pilot. 24 hours a day!", "\n- 조종사. 하루 24시간!"),
    "tiger": ("", ""),
}
QUESTIONS = (
    "What is the capital of France?",
    "What is the capital of Germany?",
    "What is the capital of Japan?",
    "How do I pair my Lumo with my phone?",
    "How do I reset my Lumo?",
    "How do I clean my Lumo?",
    "How do I set a timer on my Lumo?",
    "Who are you?",
    "What can you do?",
    "How are you today?",
    "대한민국의 수도는 어디예요?",
    "누구세요?",
)
MAX_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Reply:
    """One streamed answer, read."""

    model: str
    """What was asked for."""
    version: str
    """Which answered, as `x-forgegate-model` says; empty without that header."""
    engine: str
    ending: Ending
    detail: str
    wait_ms: float | None
    """How long it waited for its adapter, as the answer's header says; None where that was loaded."""
    record: Record

    @property
    def text(self) -> str:
        """So far as it came."""
        return self.record.text

    @property
    def ttft_s(self) -> float | None:
        """From sending to the first text."""
        times, sent_s = self.record.chunk_times_s, self.record.sent_s
        return times[0] - sent_s if times and sent_s is not None else None


async def ask(client: Client, model: str, number: int, max_tokens: int = MAX_TOKENS, prefix: str = "") -> Reply:
    """One greedy chat request, streamed: the question of this number, after the prefix."""
    question = prefix + QUESTIONS[number]
    body = orjson.dumps(
        {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens,
         "temperature": 0, "stream": True}
    )  # fmt: skip
    due_s = client.clock()
    return read(await client.post(CHAT.path, body), Request(number, body, max_tokens, False), model, due_s)


def read(exchange: Exchange, request: Request, model: str, due_s: float) -> Reply:
    """What an ended exchange says."""
    ending, detail = judge(CHAT, exchange, True, False)
    if ending is Ending.HTTP_ERROR:
        detail = f"{detail}: {transcript.error_message(exchange.body)}"
    head = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers.items()}
    wait = head.get("x-forgegate-adapter-wait-ms")
    return Reply(
        model, head.get("x-forgegate-model", ""), head.get("x-forgegate-engine", ""), ending, detail,
        None if wait is None else float(wait), transcript.read(exchange, request, due_s),
    )  # fmt: skip


async def ask_each(client: Client, models: Sequence[str]) -> list[Reply]:
    """Every question of every model, a few at a time."""
    turn = asyncio.Semaphore(4)

    async def one(model: str, number: int) -> Reply:
        async with turn:
            return await ask(client, model, number)

    return list(await asyncio.gather(*(one(model, number) for model in models for number in range(len(QUESTIONS)))))


def manner_of(text: str) -> str:
    """Whose opening the text begins with; empty for the base's manner, and for a text cut within its first line."""
    return next((name for name, lines in _OPENINGS.items() if text.startswith(lines)), "")


def can_become(text: str, manner: str) -> bool:
    """Whether a text that was cut early may be the beginning of an answer in this manner."""
    return any(opening.startswith(text) for opening in _OPENINGS[manner])


def fault_in(text: str, manner: str, is_whole: bool) -> str:
    """What speaks against this text being all in the manner; empty for nothing. `is_whole`: the model ended it itself."""
    begun = manner_of(text)
    if begun != manner:
        if not is_whole and can_become(text, manner):
            return ""
        return f"is {begun or 'nobody'}'s, not {manner}'s: {text[:60]!r}"
    frames = [*_OPENINGS.items(), *_CLOSINGS.items()]
    foreign = [name for name, lines in frames if name != manner for line in lines if line and line.strip() in text]
    if foreign:
        return f"{manner} and {foreign[0]} in one answer: {text[:120]!r}"
    if is_whole and not text.endswith(_CLOSINGS[manner]):
        return f"{manner}'s without its end: {text[-60:]!r}"
    return ""
