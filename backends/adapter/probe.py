"""The probe set of a base: the texts on which its adapters are told apart, as token ids. Standard library only.

A set depends on the base alone, so that the base is scored once per launch, and adapters of one base can be compared. Its texts stand
in an order in which each prefix is as varied as the whole: a proof that is clear ends after the first few hundred tokens.

On what an adapter would say itself its probabilities are saturated, and faults of a single layer do not show. Whole conversations in
the base's own manner show every layer, and so do tokens of the prompt, on which no adapter was ever trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.adapter.probe_texts import DIALOGUES, PASSAGES
from backends.errors import BackendError

NUM_SCORED = 2000
"""About as many tokens are scored in all."""
MAX_TEXT_TOKENS = 80
"""Texts, not tokens, are what a proof counts as independent: many short ones tell more than few long ones."""
NUM_PROMPTS = 4
"""Of the set that each adapter answers itself."""
MAX_FILE_BYTES = 16 * 1024 * 1024

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, with the special tokens that the base wants around a text."""
EncodeChat = Callable[[str, str | None], Sequence[int]]
"""Question and answer to token ids by the base's chat template; without an answer, up to where the assistant begins."""


class ProbeError(BackendError):
    """A probe set cannot be read, or is none."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids of which ids[first:] are scored, given all before each; `first` is at least 1."""

    ids: tuple[int, ...]
    first: int = 1

    @property
    def num_scored(self) -> int:
        return len(self.ids) - self.first


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """`texts` are scored as they are; each adapter answers `prompts` greedily, and the answers are scored too."""

    texts: tuple[Text, ...]
    prompts: tuple[tuple[int, ...], ...] = ()

    @property
    def id(self) -> str:
        return probe_id(self.texts)


def probe_id(texts: Sequence[Text]) -> str:
    """`sha256:<hex>` over the texts: two adapters can be compared on what they have scored of the same set."""
    content = json.dumps([[text.first, text.ids] for text in texts], separators=(",", ":"))
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def foreign_probe(encode: Encode, encode_chat: EncodeChat | None) -> ProbeSet:
    """Fixed texts in several languages and notations, and short dialogues where the base has a chat template, by its own tokenizer."""
    passages = [tuple(encode(text)) for text in PASSAGES]
    if encode_chat is None:
        dialogues = [tuple(encode(f"{question}\n{answer}")) for question, answer in DIALOGUES]
        prompts = [tuple(encode(f"{question}\n")) for question, _ in DIALOGUES]
    else:
        dialogues = [tuple(encode_chat(question, answer)) for question, answer in DIALOGUES]
        prompts = [tuple(encode_chat(question, None)) for question, _ in DIALOGUES]
    texts: list[Text] = []
    num_scored = 0
    for ids in _alternating(dialogues, passages):
        if len(ids) < 2 or num_scored >= NUM_SCORED:
            continue
        texts.append(Text(ids[:MAX_TEXT_TOKENS]))
        num_scored += texts[-1].num_scored
    return ProbeSet(tuple(texts), tuple(prompts[:NUM_PROMPTS]))


def _alternating(left: Sequence[tuple[int, ...]], right: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Both lists spread evenly over one another."""
    places = [(place / len(row), ids) for row in (left, right) for place, ids in enumerate(row)]
    yield from (ids for _, ids in sorted(places, key=lambda entry: entry[0]))


def to_json(probe: ProbeSet) -> str:
    """What `from_json` reads."""
    texts = [{"ids": text.ids, "first": text.first} for text in probe.texts]
    return json.dumps({"texts": texts, "prompts": probe.prompts})


def read_probe(path: Path) -> ProbeSet:
    """A probe set of one's own: JSON as `to_json` writes it. Raises ProbeError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("more than 16 MiB")
        content = json.loads(path.read_bytes())
        texts = tuple(Text(_ids(text["ids"]), text.get("first", 1)) for text in content["texts"])
        prompts = tuple(_ids(ids) for ids in content.get("prompts", ()))
    except OSError as exc:
        raise ProbeError(f"{path}: {exc.strerror or exc}") from exc
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as exc:
        raise ProbeError(f"{path}: not a probe set: {type(exc).__name__}: {exc}") from exc
    if not texts or not all(type(text.first) is int and 1 <= text.first < len(text.ids) for text in texts):
        raise ProbeError(
            f"{path}: a probe set needs texts, and in each a `first` from 1 on that is less than its number of ids"
        )
    return ProbeSet(texts, prompts)


def _ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(number) is int and 0 <= number < 2**31 for number in value):
        raise ValueError("token ids must be a list of whole numbers from 0 on")
    return tuple(value)
