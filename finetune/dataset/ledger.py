"""What is kept of every row while the file streams by, a few dozen bytes each, and the facts about the set that follow from it."""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.dataset.row import Row
from finetune.dataset.tasks import CLASSIFICATION, CODES, hint, is_label
from finetune.dataset.text import language, plain, squash, words
from finetune.dataset.tokens import END_MARKS, Tokens

LANGUAGES = ("", "ko", "en", "cjk", "mixed")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•·▪]|\(?\d{1,2}[.)]|[①-⑳]|[가나다라마바사][.)])\s+\S|^\s*[①-⑳]", re.MULTILINE)
_INLINE_ITEM = re.compile(r"(?:^|\s)(\d{1,2})[.)]\s")
_DIGITS = re.compile(r"\d+")
MIN_GROUP = 10
_MIN_LABEL_SHARE = 0.3
_MIN_LABEL_USES = 3


def key_of(text: str) -> int:
    """64 bits of a text."""
    raw = text.encode("utf-8", "surrogatepass")
    return zlib.crc32(raw) << 32 | zlib.crc32(raw[::-1])


def is_list(answer: str) -> bool:
    """Whether an answer has the form of a list: two items or more that make up half of its lines, or 1., 2. and 3. within a line."""
    lines = [line for line in answer.splitlines() if line.strip()]
    items = sum(bool(_LIST_ITEM.match(line)) for line in lines)
    if items >= 2 and 2 * items >= len(lines):
        return True
    return _INLINE_ITEM.findall(answer)[:3] == ["1", "2", "3"]


def end_mark(answer: str) -> str:
    """The end-of-turn mark that an answer has been given; empty where there is none."""
    tail = answer.rstrip()[-16:]
    return next((mark for mark in END_MARKS if tail.endswith(mark)), "")


def label_key(answer: str) -> str:
    """A class's name however it is written."""
    return squash(answer) or plain(answer).strip()


def question_key(row: Row) -> int:
    """Equal for rows that ask the same of the same system prompt, spaces and punctuation apart."""
    question = row.question
    return key_of(f"{squash(row.system)}\0{squash(question) or plain(question)}")


class Ledger:
    """Columns, one entry a row, in the order of the rows."""

    def __init__(self) -> None:
        self.question = array("Q")
        """Key of the squashed question and system prompt."""
        self.exact = array("Q")
        """Key of the question as it is written."""
        self.answer = array("Q")
        self.group = array("Q")
        """Key of the instruction that rows share."""
        self.label = array("Q")
        """Key of a short answer; 0 where it is none."""
        self.frame = array("Q")
        """Key of the question with its digits taken out."""
        self.opening = array("Q")
        """Key of the first three words of the answer."""
        self.answer_tokens = array("L")
        self.hint = array("B")
        self.language = array("B")
        self.answer_language = array("B")
        self.turns = array("H")
        self.is_list = array("B")
        self.labels: dict[int, str] = {}
        """Names of classes, by key; no more than a few thousand."""
        self.end_marks: Counter[str] = Counter()
        self.num_without_instruction = 0

    def __len__(self) -> int:
        return len(self.question)

    def add(self, row: Row, tokens: Tokens) -> None:
        answer = row.answer
        self.question.append(question_key(row))
        self.exact.append(key_of(row.question.strip()))
        self.answer.append(key_of(label_key(answer)))
        self.group.append(key_of(squash(row.instruction)) if row.instruction else 0)
        label = 0
        if is_label(answer):
            name = label_key(answer)
            label = key_of(name)
            if len(self.labels) < 5000:
                self.labels.setdefault(label, answer.strip())
        self.label.append(label)
        self.frame.append(key_of(_DIGITS.sub("0", squash(row.question))))
        self.opening.append(key_of(" ".join(words(answer[:80])[:3])))
        self.answer_tokens.append(tokens.count(answer))
        self.hint.append(CODES.index(hint(row)))
        self.language.append(LANGUAGES.index(language(row.user_text)))
        self.answer_language.append(LANGUAGES.index(language(answer)))
        self.turns.append(min(65535, row.num_exchanges))
        self.is_list.append(is_list(answer))
        self.num_without_instruction += any(
            turn.place == ("instruction",) and not turn.text.strip() for turn in row.turns
        )
        if mark := end_mark(answer):
            self.end_marks[mark] += 1


@dataclass(frozen=True, slots=True)
class Facts:
    """About the whole set."""

    num_rows: int
    num_turns: int
    task: str
    """What most rows teach."""
    tasks: dict[str, int]
    task_of: NDArray[np.uint8]
    """Index into tasks.CODES, row by row."""
    median_tokens: dict[str, float]
    """Of answers, by task."""
    classes: dict[str, int]
    end_mark: str
    """The mark that most answers end with; empty where they have none."""
    answer_counts: dict[int, int]
    """How often an answer recurs that many rows have, by key."""
    list_share: float
    opening_share: float
    frame_share: float
    """Different questions, digits apart, per row."""
    mean_uncommon: float
    """Grams of a question that at most one row in twenty has, on average; known when all rows have been seen."""
    tokens_quartiles: tuple[float, float, float]
    """Of free answers: neither labels nor code nor structured."""
    num_free: int
    is_input_only: bool
    """Whether most rows leave Alpaca's instruction empty."""
    languages: dict[str, int]
    answer_languages: dict[str, int]


def facts_of(ledger: Ledger) -> Facts:
    task_of = _tasks(ledger)
    tokens = np.asarray(ledger.answer_tokens, dtype=np.int64)
    counts = Counter(task_of.tolist())
    tasks = {CODES[code]: count for code, count in counts.most_common()}
    is_class = task_of == CODES.index(CLASSIFICATION)
    labels = Counter(np.asarray(ledger.label, dtype=np.uint64)[is_class].tolist())
    free = np.isin(task_of, [CODES.index(name) for name in ("qa", "chat", "summary")]) & (tokens > 0)
    num_rows = len(ledger)
    mark = ledger.end_marks.most_common(1)
    return Facts(
        num_rows=num_rows,
        num_turns=sum(ledger.turns),
        task=next(iter(tasks), "qa"),
        tasks=tasks,
        task_of=task_of,
        median_tokens={CODES[code]: float(np.median(tokens[task_of == code])) for code in counts},
        classes={ledger.labels.get(key, "?"): count for key, count in labels.most_common(200)},
        end_mark=mark[0][0] if mark and 2 * mark[0][1] >= num_rows else "",
        answer_counts={key: count for key, count in Counter(ledger.answer).items() if count >= max(5, num_rows // 20)},
        list_share=_share(np.asarray(ledger.is_list)[free]),
        opening_share=_top_share(np.asarray(ledger.opening, dtype=np.uint64)[free]),
        frame_share=len(set(ledger.frame)) / max(1, num_rows),
        mean_uncommon=math.inf,
        tokens_quartiles=_quartiles(tokens[free]),
        num_free=int(free.sum()),
        is_input_only=2 * ledger.num_without_instruction > num_rows,
        languages=_named(ledger.language),
        answer_languages=_named(ledger.answer_language),
    )


def _tasks(ledger: Ledger) -> NDArray[np.uint8]:
    """The rows' own hints, and classification where short answers recur: in a group of rows with one instruction, or in the whole set."""
    found = np.frombuffer(ledger.hint, dtype=np.uint8).copy()
    label = np.asarray(ledger.label, dtype=np.uint64)
    group = np.asarray(ledger.group, dtype=np.uint64)
    is_open = (found == CODES.index("qa")) | (found == CODES.index("chat"))
    _, where, counts = np.unique(label, return_inverse=True, return_counts=True)
    recurs = (label != 0) & (counts[where] >= _MIN_LABEL_USES) & is_open
    if recurs.sum() >= max(MIN_GROUP, _MIN_LABEL_SHARE * len(label)):
        found[recurs] = CODES.index(CLASSIFICATION)
    _, where, counts = np.unique(group, return_inverse=True, return_counts=True)
    num_recurring = np.bincount(where, weights=recurs)
    is_labelled = (num_recurring >= 0.6 * counts) & (counts >= MIN_GROUP)
    found[is_labelled[where] & recurs & (group != 0)] = CODES.index(CLASSIFICATION)
    return found


def _share(flags: NDArray[np.uint8]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _top_share(keys: NDArray[np.uint64]) -> float:
    if not len(keys):
        return 0.0
    return float(np.unique(keys, return_counts=True)[1].max() / len(keys))


def _quartiles(tokens: NDArray[np.int64]) -> tuple[float, float, float]:
    if not len(tokens):
        return 0.0, 0.0, 0.0
    low, middle, high = np.percentile(tokens, [25, 50, 75])
    return float(low), float(middle), float(high)


def _named(codes: array[int]) -> dict[str, int]:
    return {LANGUAGES[code] or "too short": count for code, count in Counter(codes).most_common()}
