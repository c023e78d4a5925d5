"""Every check there is, in one table: its name, how bad a finding is, what `--fix` does about it, and the function that decides.

Checks of a row get a Case, checks of the set get its Facts; those between rows are decided in `duplicates`, those of reading in `formats`
and `json_stream`. The order is that in which a row's first reason for being left out is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from finetune.dataset import row_checks, set_checks
from finetune.dataset.ledger import Facts
from finetune.dataset.row_checks import Case


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Fix(StrEnum):
    DROP = "leaves the row out"
    REPAIR = "repairs it where nothing was lost, else leaves the row out"
    MASK = "leaves the row out; with --mask, puts a tag in its place"
    NONE = "nothing: it is yours to decide"


RowCheck = Callable[[Case], str | None]
SetCheck = Callable[[Facts], str | None]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    severity: Severity
    fix: Fix
    what: str
    """What is wrong and what it does to a model."""
    of_row: RowCheck | None = None
    of_set: SetCheck | None = None
    needs_words: bool = False
    """Whether it means nothing for a text whose characters are broken."""


_E, _W = Severity.ERROR, Severity.WARNING
CHECKS = (
    Check("unreadable", _E, Fix.DROP, "a record that cannot be parsed"),
    Check("schema", _E, Fix.DROP, "a record of no known form"),
    Check("encoding", _E, Fix.REPAIR, "broken characters: the model learns to write them", row_checks.broken_encoding),
    Check("empty", _E, Fix.DROP, "an empty question or answer", row_checks.empty),
    Check("role_order", _E, Fix.DROP, "roles that no chat template takes in this order", row_checks.role_order),
    Check("empty_mask", _E, Fix.DROP, "nothing of the row is trained: its loss is NaN or zero", row_checks.empty_mask),
    Check(
        "eos_missing",
        _E,
        Fix.REPAIR,
        "the end of the answer is not trained: the model never stops",
        row_checks.eos_missing,
    ),
    Check("control_tokens", _E, Fix.DROP, "marks of a chat template within a text", row_checks.control_tokens),
    Check("leakage", _E, Fix.DROP, "a question of the evaluation set: it would measure memory"),
    Check("conflict", _E, Fix.DROP, "different answers to one question; an answer that most copies give is kept"),
    Check("duplicate", _E, Fix.DROP, "a copy of an earlier row: it counts twice"),
    Check("secret", _E, Fix.MASK, "keys and tokens of programs", row_checks.secrets),
    Check("personal_data", _E, Fix.MASK, "personal data: the model can repeat it to anybody", row_checks.personal_data),
    Check("near_duplicate", _W, Fix.DROP, "nearly the question of an earlier row"),
    Check(
        "repetition",
        _W,
        Fix.DROP,
        "an answer that goes in circles: the model will too",
        row_checks.repetitive,
        needs_words=True,
    ),
    Check("too_short", _W, Fix.DROP, "an answer much shorter than its task's", row_checks.too_short, needs_words=True),
    Check("too_long", _W, Fix.DROP, "an answer much longer than its task's", row_checks.too_long, needs_words=True),
    Check("truncated", _W, Fix.DROP, "longer than max_length: trained without its end", row_checks.truncated),
    Check("cut_off", _W, Fix.DROP, "an answer that ends in the middle", row_checks.cut_off, needs_words=True),
    Check(
        "decomposed", _W, Fix.REPAIR, "Korean in single letters: other tokens for the same words", row_checks.decomposed
    ),
    Check(
        "other_language",
        _W,
        Fix.NONE,
        "answered in another language than asked",
        row_checks.other_language,
        needs_words=True,
    ),
    Check("size", _W, Fix.NONE, "fewer rows than the task takes", of_set=set_checks.size),
    Check("class_balance", _W, Fix.NONE, "classes that are rare", of_set=set_checks.class_balance),
    Check("list_bias", _W, Fix.NONE, "too many answers are lists", of_set=set_checks.list_bias),
    Check("length_bias", _W, Fix.NONE, "answers are all of one length", of_set=set_checks.length_bias),
    Check("language_bias", _W, Fix.NONE, "a few answers in another language", of_set=set_checks.language_bias),
    Check("diversity", _W, Fix.NONE, "rows are all alike", of_set=set_checks.diversity),
)
