"""How many tokens a text has: by a model's own tokenizer where one is named, else estimated; and what a row becomes in training.

transformers is imported when a model is named, never before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune.dataset.errors import DataLacksPackage, DataUnusable
from finetune.dataset.formats import COMPLETION, TEXT
from finetune.dataset.row import ASSISTANT, Row, messages

BYTES_PER_TOKEN = 4
"""Of UTF-8, for the vocabularies of 100,000 and more that current models have: about 4 in English, 3.5 to 4.5 in Korean."""
END_MARKS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "</s>",
    "<|return|>",
    "<|endofturn|>",
    "[|endofturn|]",
    "<eos>",
)
ENDS_BY_OPENING = {
    "<|im_start|>assistant": "<|im_end|>",
    "<|start_header_id|>assistant": "<|eot_id|>",
    "<start_of_turn>model": "<end_of_turn>",
    "[/INST]": "</s>",
}
"""What a template opens the assistant's turn with, and what ends it."""
_TURN_TOKENS = 6
"""What a chat template puts around a turn, for estimates."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as the model sees it: token ids and which of them the loss counts."""

    ids: tuple[int, ...]
    is_trained: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Tokens(Protocol):
    """What the checks need of a tokenizer."""

    is_exact: bool

    def count(self, text: str) -> int: ...
    def length(self, row: Row) -> int: ...
    def render(self, row: Row) -> Rendered | None: ...


class Estimate:
    """Without a tokenizer."""

    is_exact = False

    def count(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)

    def length(self, row: Row) -> int:
        return sum(self.count(turn.text) + _TURN_TOKENS for turn in row.turns)

    def render(self, row: Row) -> Rendered | None:
        return None


class ModelTokens:
    """A model's tokenizer and chat template. Raises DataError."""

    is_exact = True

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as exc:
            raise DataLacksPackage(
                f"tokens of a model need transformers: {exc}: run `forgegate install trainer`"
            ) from exc
        if not folder.is_dir():
            raise DataUnusable(
                f"{folder}: there is no such model folder; a hub's model is fetched first: forgegate models pull ID"
            )
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (KeyError, OSError, TypeError, ValueError) as exc:
            raise DataUnusable(f"{folder}: transformers cannot load its tokenizer: {exc}") from exc
        if not self.tokenizer.chat_template:
            raise DataUnusable(
                f"{folder}: its tokenizer has no chat template, so that rows cannot be shown as the model would see them"
            )
        self._marks_answers = (
            "{% generation" in self.tokenizer.chat_template or "{%- generation" in self.tokenizer.chat_template
        )
        self.ends = {
            number
            for mark in END_MARKS
            if (number := self.tokenizer.convert_tokens_to_ids(mark)) not in (None, self.tokenizer.unk_token_id)
        } | ({self.tokenizer.eos_token_id} - {None})

    @property
    def max_context(self) -> int | None:
        """What the tokenizer says that the model can read; None where it does not say."""
        limit = int(self.tokenizer.model_max_length)
        return limit if limit < 10_000_000 else None

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(_encodable(text), add_special_tokens=False))

    def length(self, row: Row) -> int:
        return len(self.render(row))

    def render(self, row: Row) -> Rendered:
        """Raises DataUnusable where the chat template refuses the row."""
        if row.form == COMPLETION and is_rendered(row):
            return self._as_written(row)
        found = messages(row)
        for message in found:
            message["content"] = _encodable(
                _without_end(message["content"]) if row.form == TEXT else message["content"]
            )
        try:
            rendered = self._by_marks(found) if self._marks_answers else self._by_prefixes(found)
        except Exception as exc:
            raise DataUnusable(f"the chat template refuses the row: {exc}") from exc
        masked = [turn.is_masked for turn in row.turns if turn.role == ASSISTANT]
        return _without_masked(rendered, masked) if any(masked) else rendered

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _as_written(self, row: Row) -> Rendered:
        """A prompt and a completion that have a template's marks already: none is put around them."""
        parts = [
            (turn.role == ASSISTANT, self.tokenizer.encode(_encodable(turn.text), add_special_tokens=False))
            for turn in row.turns
        ]
        return Rendered(
            tuple(number for _, ids in parts for number in ids), tuple(flag for flag, ids in parts for _ in ids)
        )

    def _by_marks(self, found: list[dict[str, Any]]) -> Rendered:
        made = self.tokenizer.apply_chat_template(found, return_dict=True, return_assistant_tokens_mask=True)
        return Rendered(tuple(made["input_ids"]), tuple(map(bool, made["assistant_masks"])))

    def _by_prefixes(self, found: list[dict[str, Any]]) -> Rendered:
        """Templates without generation marks: an answer is what its turn adds to the prompt for it."""
        whole = self._ids(found, False)
        is_trained = [False] * len(whole)
        for place, message in enumerate(found):
            if message["role"] == ASSISTANT:
                start = len(self._ids(found[:place], True)) if place else 0
                end = len(self._ids(found[: place + 1], False))
                # Newlines that a template puts after the end of a turn are not the model's to say.
                while end > start and whole[end - 1 : end] and self.text(whole[end - 1 : end]).isspace():
                    end -= 1
                is_trained[start:end] = [True] * (end - start)
        return Rendered(tuple(whole), tuple(is_trained[: len(whole)]))

    def _ids(self, found: list[dict[str, Any]], add_prompt: bool) -> list[int]:
        return list(
            self.tokenizer.apply_chat_template(found, return_dict=True, add_generation_prompt=add_prompt)["input_ids"]
        )


def is_rendered(row: Row) -> bool:
    """Whether a template's marks stand in the texts: at the end of the answer, or where the prompt opens it."""
    return row.answer.rstrip().endswith(END_MARKS) or opened(row) != ""


def opened(row: Row) -> str:
    """The mark in the prompt that opens the assistant's turn; empty where there is none."""
    tail = row.question.rstrip()[-60:]
    return next((mark for mark in ENDS_BY_OPENING if mark in tail), "")


def _without_end(text: str) -> str:
    for mark in END_MARKS:
        text = text.removesuffix(mark)
    return text


def _encodable(text: str) -> str:
    """Half surrogate pairs would stop the tokenizer; that they are there is another check's to say."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _without_masked(rendered: Rendered, masked: list[bool]) -> Rendered:
    """Spans of answers that the record takes out of the loss, by their order."""
    is_trained = list(rendered.is_trained)
    span = -1
    for place, trained in enumerate(rendered.is_trained):
        if trained and (place == 0 or not rendered.is_trained[place - 1]):
            span += 1
        if trained and span < len(masked) and masked[span]:
            is_trained[place] = False
    return Rendered(rendered.ids, tuple(is_trained))
