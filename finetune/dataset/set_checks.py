"""Checks of the set as a whole: pure functions of its facts that say what is wrong, or None."""

from __future__ import annotations

from finetune.dataset.ledger import Facts
from finetune.dataset.tasks import CHAT, CLASSIFICATION, CODE, FORMAT, MIN_CLASS_ROWS, TASKS

_MIN_FREE = 30
"""Free answers below which their distribution says nothing."""
_MAX_LIST_SHARE = 0.4
_MAX_OPENING_SHARE = 0.4
_MIN_FRAME_SHARE = 0.3
_MIN_UNCOMMON = 3
_MAX_CLASS_RATIO = 10
_MIN_MEDIAN_TOKENS = 12


def size(facts: Facts) -> str | None:
    """Against the article's table."""
    task = TASKS[facts.task]
    count = facts.num_turns if facts.task == CHAT else facts.num_rows
    if count >= task.min_rows:
        return None
    ideal = f"{task.ideal[0]:,}" + (f" to {task.ideal[1]:,}" if task.ideal[1] else " or more")
    return f"{count:,} {task.unit} of {facts.task}: at least {task.min_rows:,} are recommended, {ideal} are ideal"


def class_balance(facts: Facts) -> str | None:
    """A class of one or two rows counts, too: it is one that is hardly ever shown, or a name that was mistyped."""
    counts = facts.classes
    if facts.task != CLASSIFICATION or len(counts) < 2:
        return None
    (most, largest), (least, smallest) = max(counts.items(), key=_count), min(counts.items(), key=_count)
    if largest > _MAX_CLASS_RATIO * smallest:
        return f"{most!r} has {largest} rows, {least!r} {smallest}: more than {_MAX_CLASS_RATIO} to 1"
    small = [f"{name!r} {count}" for name, count in counts.items() if count < MIN_CLASS_ROWS]
    return f"classes of fewer than {MIN_CLASS_ROWS} rows: {', '.join(small[:8])}" if small else None


def _count(item: tuple[str, int]) -> int:
    return item[1]


def list_bias(facts: Facts) -> str | None:
    if facts.num_free < _MIN_FREE or facts.list_share <= _MAX_LIST_SHARE:
        return None
    return f"{facts.list_share:.0%} of the free answers are lists: the model will answer everything with one"


def length_bias(facts: Facts) -> str | None:
    low, middle, high = facts.tokens_quartiles
    if facts.num_free < _MIN_FREE or facts.task in (CLASSIFICATION, FORMAT, CODE):
        return None
    if middle < _MIN_MEDIAN_TOKENS:
        return f"half of the free answers have fewer than {middle:.0f} tokens: the model will answer briefly whatever is asked"
    if high - low <= 0.12 * middle:
        return f"half of the free answers have {low:.0f} to {high:.0f} tokens: the model will write that much whatever is asked"
    return None


def language_bias(facts: Facts) -> str | None:
    """A few answers in another language than nearly all others: it will turn up unasked."""
    known = {name: count for name, count in facts.answer_languages.items() if name in ("ko", "en", "cjk")}
    total = sum(known.values())
    if total < _MIN_FREE:
        return None
    top = max(known, key=lambda name: known[name])
    for name, count in known.items():
        if name != top and 0.002 * total < count < 0.05 * total:
            return f"{count} of {total} answers are in {_NAMES[name]}, the others in {_NAMES[top]}: it will turn up unasked"
    return None


_NAMES = {"ko": "Korean", "en": "English", "cjk": "Chinese or Japanese"}


def diversity(facts: Facts) -> str | None:
    if facts.num_rows < _MIN_FREE:
        return None
    if facts.frame_share < _MIN_FRAME_SHARE:
        return f"only {facts.frame_share:.0%} of the questions differ in more than their numbers"
    if facts.num_rows >= 100 and facts.mean_uncommon < _MIN_UNCOMMON:
        return (
            "the questions are put together from the same few phrases: hardly one has wording that most others have not"
        )
    if facts.num_free >= _MIN_FREE and facts.opening_share > _MAX_OPENING_SHARE:
        return f"{facts.opening_share:.0%} of the free answers begin with the same three words"
    return None
