"""Checks of one row: pure functions that say what is wrong with it, or None."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backends import personal
from finetune.dataset import mojibake, repetition
from finetune.dataset.formats import TEXT
from finetune.dataset.ledger import Facts, end_mark, key_of, label_key
from finetune.dataset.row import ASSISTANT, SYSTEM, TOOL, USER, Row
from finetune.dataset.tasks import CLASSIFICATION, CODE, FORMAT, TASKS
from finetune.dataset.text import language, plain, scripts, shown
from finetune.dataset.tokens import END_MARKS, Rendered, opened

_NOTHING = re.compile(r"[\s\W_]*", re.UNICODE)
_ABSENT = frozenset(
    [
        "nan",
        "null",
        "none",
        "n/a",
        "#n/a",
        "#value!",
        "#ref!",
        "#name?",
        "undefined",
        "nil",
        "<na>",
        "nat",
        "(null)",
        "(blank)",
        "tbd",
        "todo",
    ]
)
_SYMBOL = re.compile(r"[+*/=%^<>$€£₩\U0001f300-\U0001faff☀-➿]")
_CONTROL_TOKENS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|begin_of_text|start_header_id|end_header_id|eot_id|system|user|assistant|end|return|channel|message)\|>"
    r"|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\[\|(?:user|assistant|system|endofturn)\|\]"
)
_OTHER_LANGUAGE = re.compile(
    r"번역|영어로|영문|영작|한국어로|한글로|국문|일본어|중국어|"
    r"translat|in english|in korean|into korean|into english|to korean|to english|한영|영한",
    re.IGNORECASE,
)
_SHORT_OF_MEDIAN, _MIN_MEDIAN, _FULL_MEDIAN = 6, 12, 20
_MIN_FLOOR, _MAX_FLOOR = 5, 16
"""Tokens: where answers are sentences, fewer than five are a word or two; sixteen and more are a sentence, whatever the others are."""
_LONG_OF_MEDIAN = 8
_MIN_LONG_TOKENS = 600
_ENOUGH_LETTERS = 24


@dataclass(frozen=True, slots=True)
class Case:
    """A row with what the checks share about it."""

    row: Row
    task: str
    answer_tokens: int
    num_tokens: int
    """Of the whole row as it is trained, exact or estimated."""
    max_length: int
    facts: Facts
    rendered: Rendered | None = None
    ends: frozenset[int] = frozenset()
    """Ids of the tokens that end a turn."""


def empty(case: Case) -> str | None:
    row = case.row
    for turn in row.turns:
        if turn.role in (USER, ASSISTANT) and not turn.has_calls and turn.place[-1] != "input":
            if is_blank(turn.text):
                if turn.place == ("instruction",) and case.facts.is_input_only and not is_blank(row.user_text):
                    continue
                return (
                    f"{_field(turn.place)} is {shown(turn.text)!r}"
                    if turn.text.strip()
                    else f"{_field(turn.place)} is empty"
                )
            if turn.role == ASSISTANT and _is_absent(turn.text, case.facts):
                return f"{_field(turn.place)} is {turn.text.strip()!r}"
            if turn.role == USER and plain(turn.text).strip() in _ABSENT:
                return f"{_field(turn.place)} is {turn.text.strip()!r}"
    if not row.turns:
        return "it has no messages"
    return None


def is_blank(text: str) -> bool:
    """No letter, digit or sign that says something."""
    return bool(_NOTHING.fullmatch(plain(text))) and not _SYMBOL.search(text)


def _is_absent(text: str, facts: Facts) -> bool:
    """A table's word for nothing, unless the set uses it as an answer."""
    word = plain(text).strip()
    return word in _ABSENT and key_of(label_key(text)) not in facts.answer_counts


def _field(place: tuple[str | int, ...]) -> str:
    names = [f"message {part + 1}" if isinstance(part, int) else part for part in place]
    return " of ".join(reversed(names[1:])) if len(names) > 1 else str(names[0])


def broken_encoding(case: Case) -> str | None:
    return next((why for text in case.row.texts() if (why := mojibake.why_broken(text))), None)


def decomposed(case: Case) -> str | None:
    return "letters of Korean are written apart (NFD)" if any(map(mojibake.is_decomposed, case.row.texts())) else None


def role_order(case: Case) -> str | None:
    row = case.row
    if row.problems:
        return row.problems[0]
    before = ""
    for place, turn in enumerate(row.turns):
        role = USER if turn.place == ("input",) else turn.role
        if role == SYSTEM and place > 0:
            return f"message {place + 1}: a system prompt after the beginning"
        if turn.place != ("input",) and (why := _out_of_order(before, role, turn.has_calls)):
            return f"message {place + 1}: {why}"
        before = "calls" if turn.has_calls else role
    return None if before in (ASSISTANT, "calls") or not row.turns else f"it ends with {before}, not with the assistant"


def _out_of_order(before: str, role: str, has_calls: bool) -> str | None:
    if role == USER and before == USER:
        return "the user speaks twice in a row"
    if role == ASSISTANT and before == ASSISTANT and not has_calls:
        return "the assistant speaks twice in a row"
    if role == ASSISTANT and before in ("", SYSTEM):
        return "the assistant speaks before the user"
    if role == TOOL and before not in (ASSISTANT, "calls", TOOL):
        return "a tool's result that no call asked for"
    if role == USER and before == "calls":
        return "the user speaks where a tool's result is due"
    return None


def too_short(case: Case) -> str | None:
    """Less than a sixth of what the task's answers usually have, or a word or two in place of sentences.

    Labels, structured answers and sets of short answers are as they are.
    """
    if case.task in (CLASSIFICATION, FORMAT) or is_blank(case.row.answer) or _last_turn_calls(case.row):
        return None
    median = case.facts.median_tokens.get(case.task, 0.0)
    floor = min(median / _SHORT_OF_MEDIAN, _MAX_FLOOR)
    if median >= _FULL_MEDIAN:
        floor = max(floor, _MIN_FLOOR)
    if median >= _MIN_MEDIAN and case.answer_tokens < floor:
        return f"{case.answer_tokens} tokens, where {case.task} answers of this set have {median:.0f}"
    return None


def too_long(case: Case) -> str | None:
    limit = TASKS[case.task].max_answer_tokens
    median = case.facts.median_tokens.get(case.task, 0.0)
    if case.answer_tokens > limit:
        return f"{case.answer_tokens} tokens; {case.task} answers of more than {limit} are mostly noise"
    if case.answer_tokens > max(_MIN_LONG_TOKENS, _LONG_OF_MEDIAN * median) and case.task != CODE:
        return f"{case.answer_tokens} tokens, where {case.task} answers of this set have {median:.0f}"
    return None


def repetitive(case: Case) -> str | None:
    answers = [turn.text for turn in case.row.turns if turn.role == ASSISTANT]
    return next((why for text in answers if (why := repetition.why_repetitive(text))), None)


def truncated(case: Case) -> str | None:
    if case.num_tokens > case.max_length and not empty_mask(case):
        return f"{case.num_tokens} tokens do not fit in {case.max_length}: the end of the answer, and its end token, are cut off"
    return None


def empty_mask(case: Case) -> str | None:
    """Nothing of the row is left for the loss."""
    answers = [
        turn
        for turn in case.row.turns
        if turn.role == ASSISTANT and not (turn.is_masked or (is_blank(turn.text) and not turn.has_calls))
    ]
    if not answers:
        return "the assistant says nothing that is trained"
    if case.rendered is not None:
        if any(case.rendered.is_trained[: case.max_length]):
            return None
        return f"none of its first {case.max_length} tokens is the assistant's"
    # Where nothing was rendered, it is the share of the text that is cut off.
    if case.row.num_exchanges == 1 and case.num_tokens - case.answer_tokens >= case.max_length:
        return (
            f"about {case.num_tokens - case.answer_tokens} tokens stand before the answer, {case.max_length} are kept"
        )
    return None


def eos_missing(case: Case) -> str | None:
    row = case.row
    if case.facts.end_mark and row.answer.strip() and not end_mark(row.answer):
        return f"the answer does not end with {case.facts.end_mark}, as others do"
    if (mark := opened(row)) and row.answer.strip() and not end_mark(row.answer):
        return f"the prompt is written with a template's marks ({mark}), the answer ends without one"
    if (
        case.rendered is not None
        and any(case.rendered.is_trained)
        and not truncated(case)
        and not _ends_trained(case.rendered, case.ends)
    ):
        return "the chat template does not train the token that ends the answer"
    return None


def _ends_trained(rendered: Rendered, ends: frozenset[int]) -> bool:
    last = max(place for place, trained in enumerate(rendered.is_trained) if trained)
    return rendered.ids[last] in ends


def control_tokens(case: Case) -> str | None:
    """Marks of chat templates within a text: the tokenizer takes them for real ones. At the end of answers they are the set's own way."""
    row = case.row
    if case.facts.end_mark or opened(row) or row.form == TEXT:
        return None
    for turn in row.turns:
        if "<" in turn.text or "[" in turn.text:
            found = _CONTROL_TOKENS.search(turn.text)
            if found and not (turn.role == USER and "`" in turn.text and found.group() in ("<s>", "</s>")):
                return f"{found.group()} within {_field(turn.place)}"
    return None


def other_language(case: Case) -> str | None:
    """The answer is in another language than the question, which does not ask for that."""
    row = case.row
    if case.task in (CODE, FORMAT, CLASSIFICATION) or _OTHER_LANGUAGE.search(f"{row.system} {row.user_text}"):
        return None
    question = next((turn.text for turn in reversed(row.turns) if turn.role == USER), "")
    asked, answered = language(question), language(row.answer)
    found = scripts(row.answer)
    if found["en"] + 2 * found["ko"] + 2 * found["cjk"] < _ENOUGH_LETTERS or not asked:
        return None
    if (asked, answered) in (("ko", "en"), ("en", "ko")) or (answered == "cjk" and asked in ("ko", "en")):
        if answered == "en" and found["ko"] > 0.1 * found["en"]:
            return None
        return f"asked in {_NAMES[asked]}, answered in {_NAMES[answered]}"
    return None


_NAMES = {"ko": "Korean", "en": "English", "cjk": "Chinese or Japanese"}


def personal_data(case: Case) -> str | None:
    kinds = dict.fromkeys(
        found.kind for text in case.row.texts() for found in personal.find(text) if found.kind != "secret"
    )
    return ", ".join(kinds) or None


def secrets(case: Case) -> str | None:
    return (
        "a key or token"
        if any(found.kind == "secret" for text in case.row.texts() for found in personal.find(text))
        else None
    )


def cut_off(case: Case) -> str | None:
    """The answer was cut where it was generated: an open code fence, JSON that does not end."""
    answer = case.row.answer.rstrip()
    if answer.count("```") % 2:
        return "a code block is not closed"
    if (
        case.task == FORMAT
        and answer[:1] in ("{", "[")
        and answer[-1:] not in ("}", "]")
        and not answer.endswith(END_MARKS)
    ):
        return "JSON that does not end"
    return None


def _last_turn_calls(row: Row) -> bool:
    return bool(row.turns) and row.turns[-1].has_calls
