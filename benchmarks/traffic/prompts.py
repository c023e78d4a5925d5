"""Texts to ask: generated, of a file, or of the demo model's corpus."""

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.traffic.errors import WorkloadError

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
_FIRST_ID = 260
DEMO = "demo"
"""Instead of a file's name: prompts of the demo model's corpus."""


class PromptForm(StrEnum):
    """What a generated prompt is made of."""

    WORDS = "words"
    """English words: about one token each, and the chat template's tokens come on top."""
    IDS = "ids"
    """Random token ids (completions only): exactly as many tokens as asked."""


Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Writer:
    """Makes prompts of one form."""

    form: PromptForm = PromptForm.WORDS
    vocab_size: int = 4096
    """Exclusive upper end of the random ids; the lowest 260 are left out, where vocabularies keep control tokens."""

    def __post_init__(self) -> None:
        if self.form is PromptForm.IDS and self.vocab_size <= _FIRST_ID + 1:
            raise WorkloadError("the vocabulary must hold more than 261 ids")

    def write(self, num: int, rng: random.Random) -> Prompt:
        """A prompt of `num` tokens."""
        if self.form is PromptForm.IDS:
            return [rng.randrange(_FIRST_ID, self.vocab_size) for _ in range(num)]
        return " ".join(rng.choice(WORDS) for _ in range(num))

    def write_known(self, num: int, key: str) -> Prompt:
        """The same key gives the same tokens; fewer of them are the beginning of more."""
        rng = random.Random(key)
        if self.form is PromptForm.IDS:
            return rng.choices(range(_FIRST_ID, self.vocab_size), k=num)
        return " ".join(rng.choices(WORDS, k=num))

    def join(self, parts: list[Prompt]) -> Prompt:
        """One after the other."""
        if self.form is PromptForm.IDS:
            return [token for part in parts for token in part if isinstance(token, int)]
        return " ".join(str(part) for part in parts)


def read_prompts(path: Path) -> tuple[Any, ...]:
    """Prompts of a file: one text per line, or `.jsonl` with `{"prompt": text}` or `{"messages": [...]}` per line.

    Raises WorkloadError with the line's number.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise WorkloadError(f"cannot read prompts from {path}: {exc}") from exc
    return _prompts_of(text, str(path), is_json=path.suffix == ".jsonl")


def demo_prompts() -> tuple[Any, ...]:
    """Chats of the demo model's corpus that it was not trained on, without those that need tools."""
    text = resources.files(__package__).joinpath("demo.jsonl").read_text("utf-8")
    return _prompts_of(text, DEMO, is_json=True)


def _prompts_of(text: str, name: str, *, is_json: bool) -> tuple[Any, ...]:
    prompts = [
        _from_json(line, f"{name}:{number}") if is_json else line
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if not prompts:
        raise WorkloadError(f"{name} holds no prompt")
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
