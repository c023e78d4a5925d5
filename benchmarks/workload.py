"""What is asked: seeded lists of requests, made before the clock starts. The same seed gives the same bytes."""

import json
import random
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

# Short and frequent, so that most vocabularies hold each as one token; the server's `usage` says how many there were.
_TEXT = """
the of and to in is was for on that with as are at be this have from or one had by word but not what all were we
when your can said there use an each which she do how their if will up other about out many then them these so some
her would make like him into time has look two more write go see number no way could people my than first water been
call who oil its now find long down day did get come made may part over new sound take only little work know place
year live me back give most very after thing our just name good sentence man think say great where help through much
before line right too mean old any same tell boy follow came want show also around form three small set put end does
another well large must big even such because turn here why ask went men read need land different home us move try
kind hand picture again change off play spell air away animal house point page letter mother answer found study
still learn should world high every near add food between own below country plant last school father keep tree never
start
"""
WORDS = tuple(_TEXT.split())


class WorkloadError(ValueError):
    """The workload asked for cannot be made; the message says why."""


class Endpoint(StrEnum):
    """Which API is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        """Path under the server's root."""
        return "/v1/chat/completions" if self is Endpoint.CHAT else "/v1/completions"


class PromptForm(StrEnum):
    """What a generated prompt is made of."""

    WORDS = "words"
    """English words: about one token each, and the chat template's tokens come on top."""
    IDS = "ids"
    """Random token ids (completions only): exactly as many tokens as asked."""


@dataclass(frozen=True, slots=True)
class Length:
    """A number of tokens, uniform between both ends, which may be equal."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> "Length":
        """`128` or `64-256`; raises WorkloadError."""
        low, dash, high = text.partition("-")
        try:
            length = cls(int(low), int(high if dash else low))
        except ValueError as exc:
            raise WorkloadError(f"{text!r} is no length: write 128, or 64-256 for a uniform draw") from exc
        if not 1 <= length.low <= length.high:
            raise WorkloadError(f"{text!r} is no length: it must be at least 1 and must not fall")
        return length

    def draw(self, rng: random.Random) -> int:
        """One length."""
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be sent."""

    index: int
    body: bytes
    max_tokens: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """From which requests are drawn. `extra` is merged into every body, last."""

    model: str
    endpoint: Endpoint = Endpoint.CHAT
    input_tokens: Length = Length(32, 32)
    output_tokens: Length = Length(128, 128)
    prompt_form: PromptForm = PromptForm.WORDS
    vocab_size: int = 4096
    """Exclusive upper end of the random ids; the lowest 260 are left out, where vocabularies keep control tokens."""
    prompts: tuple[Any, ...] = ()
    """Instead of generated ones: texts, or lists of chat messages."""
    ignore_eos: bool = True
    min_tokens: bool = False
    temperature: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prompt_form is PromptForm.IDS and self.endpoint is Endpoint.CHAT:
            raise WorkloadError("prompts of token ids need the completions endpoint: chat takes text")
        if self.prompt_form is PromptForm.IDS and self.vocab_size <= 261:
            raise WorkloadError("the vocabulary must hold more than 261 ids")
        if self.endpoint is Endpoint.COMPLETIONS and any(not isinstance(prompt, str) for prompt in self.prompts):
            raise WorkloadError("a prompt of chat messages needs the chat endpoint")

    def requests(self, num: int, seed: str) -> list[Request]:
        """`num` requests; different seeds share no generated prompt, so that no prefix cache answers for the engine."""
        rng = random.Random(seed)
        order = list(self.prompts)
        rng.shuffle(order)
        return [self._request(index, order[index % len(order)] if order else None, rng) for index in range(num)]

    def _request(self, index: int, given: Any, rng: random.Random) -> Request:
        max_tokens = self.output_tokens.draw(rng)
        prompt = self._generated(rng) if given is None else given
        body: dict[str, Any] = {"model": self.model, **self._input(prompt), "max_tokens": max_tokens}
        body |= {"temperature": self.temperature, "stream": True, "stream_options": {"include_usage": True}}
        if self.ignore_eos:
            body["ignore_eos"] = True
        if self.min_tokens:
            body["min_tokens"] = max_tokens
        return Request(index, orjson.dumps(body | self.extra), max_tokens, self.ignore_eos or self.min_tokens)

    def _generated(self, rng: random.Random) -> str | list[int]:
        num = self.input_tokens.draw(rng)
        if self.prompt_form is PromptForm.IDS:
            return [rng.randrange(260, self.vocab_size) for _ in range(num)]
        return " ".join(rng.choice(WORDS) for _ in range(num))

    def _input(self, prompt: Any) -> dict[str, Any]:
        if self.endpoint is Endpoint.COMPLETIONS:
            return {"prompt": prompt}
        return {"messages": prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]}


def read_prompts(path: Path) -> tuple[Any, ...]:
    """Prompts of a file: one text per line, or `.jsonl` with `{"prompt": text}` or `{"messages": [...]}` per line.

    Raises WorkloadError with the line's number.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise WorkloadError(f"cannot read prompts from {path}: {exc}") from exc
    is_json = path.suffix == ".jsonl"
    prompts = [
        _from_json(line, f"{path}:{number}") if is_json else line
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise WorkloadError(f"{path} holds no prompt")
    return tuple(prompts)


def _from_json(line: str, where: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as exc:
        raise WorkloadError(f"{where}: not JSON: {exc}") from exc
    prompt = (row.get("prompt") or row.get("messages")) if isinstance(row, dict) else None
    if not isinstance(prompt, str | list):
        raise WorkloadError(f'{where}: neither "prompt" nor "messages"')
    return prompt
