"""What both models are asked: conversations up to where the assistant is to speak."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.dataset.errors import DataUnusable
from finetune.dataset.loading import load
from finetune.dataset.progress import Unwatched
from finetune.dataset.row import ASSISTANT, USER, messages
from finetune.dataset.spool import Spool


@dataclass(frozen=True, slots=True)
class Prompt:
    digest: str
    """sha256 of the messages, by which a vote names it."""
    cluster: str
    """The fact or template that it is one wording of; its own digest where the file does not say."""
    messages: tuple[Mapping[str, Any], ...]


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Each once, in the file's order: lines of a .txt, else rows in any form of training data, without their last answers.

    Raises DataError.
    """
    found = {prompt.digest: prompt for prompt in (_lines(path) if path.suffix == ".txt" else _rows(path))}
    if not found:
        raise DataUnusable(
            f'{path} has no prompt: write one a line, as {{"prompt": "..."}} in .jsonl or plainly in .txt'
        )
    return tuple(found.values())


def _lines(path: Path) -> Iterator[Prompt]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise DataUnusable(f"{path}: there is no such file") from exc
    except UnicodeDecodeError as exc:
        raise DataUnusable(f"{path}: it is no UTF-8; save it as such") from exc
    return (_prompt([{"role": USER, "content": line.strip()}], "") for line in text.split("\n") if line.strip())


def _rows(path: Path) -> Iterator[Prompt]:
    with Spool() as spool:
        _, rows = load([path], spool, {}, Unwatched())
        for row in rows:
            said = messages(row)
            last = max((place for place, one in enumerate(said) if one["role"] == ASSISTANT), default=len(said))
            asked = said[:last]
            if any(one["role"] == USER and one["content"].strip() for one in asked):
                yield _prompt(asked, str(row.record.get("cluster") or ""))


def _prompt(asked: Sequence[Mapping[str, Any]], cluster: str) -> Prompt:
    digest = "sha256:" + hashlib.sha256(json.dumps(list(asked), sort_keys=True).encode()).hexdigest()
    return Prompt(digest, cluster or digest, tuple(asked))
