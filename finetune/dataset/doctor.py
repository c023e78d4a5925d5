"""The examination of a set: read it, know it, check every row, compare rows, judge the whole. Of a row only small numbers are held."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.personal import mask
from finetune.dataset.checks import CHECKS, Check
from finetune.dataset.duplicates import CONFLICT, Index, is_same_answer, matches
from finetune.dataset.errors import DataUnusable
from finetune.dataset.ledger import Facts, Ledger, facts_of, question_key
from finetune.dataset.loading import Loaded, load
from finetune.dataset.progress import Unwatched, Watch
from finetune.dataset.row import Row
from finetune.dataset.row_checks import Case
from finetune.dataset.spool import Spool
from finetune.dataset.tasks import CODES
from finetune.dataset.text import shown
from finetune.dataset.tokens import Estimate, ModelTokens, Rendered, Tokens

MAX_EXAMPLES = 5
NO_COMPARISON = ("empty", "encoding")
"""What makes a row unfit to be compared with others."""


@dataclass(frozen=True, slots=True)
class Example:
    row: int
    why: str
    text: str
    other: int | None = None


@dataclass(slots=True)
class Findings:
    """Of one check. `rows` are numbers; `others`, beside them, the rows that they are like, 0 for none."""

    check: Check
    rows: array[int] = field(default_factory=lambda: array("L"))
    others: array[int] = field(default_factory=lambda: array("L"))
    examples: list[Example] = field(default_factory=list)
    of_set: str = ""
    """What is wrong with the set as a whole; empty where nothing is."""

    @property
    def count(self) -> int:
        return len(self.rows) or int(bool(self.of_set))

    def add(self, number: int, why: str, text: str, other: int = 0) -> None:
        self.rows.append(number)
        self.others.append(other)
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(Example(number, why, shown(text), other or None))


@dataclass(frozen=True, slots=True)
class Options:
    tokens: Tokens = field(default_factory=Estimate)
    max_length: int = 4096
    """Tokens of a row that training keeps; the article's `sequence_len`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    eval_paths: tuple[Path, ...] = ()


@dataclass(slots=True)
class Examination:
    """What was found. `kept_answers` are numbers of rows in conflict whose answer most copies give."""

    loaded: Loaded
    num_rows: int
    """Of the set itself; the spool has the evaluation set's after them."""
    facts: Facts
    ledger: Ledger
    options: Options
    findings: dict[str, Findings]
    eval_files: Loaded | None = None
    kept_answers: set[int] = field(default_factory=set)

    @property
    def num_errors(self) -> int:
        return sum(found.count for found in self.findings.values() if found.check.severity == "error")

    @property
    def num_warnings(self) -> int:
        return sum(found.count for found in self.findings.values() if found.check.severity == "warning")


def examine(paths: Sequence[Path], spool: Spool, options: Options, watch: Watch | None = None) -> Examination:
    """Raises DataError where there is nothing to examine."""
    watch = watch or Unwatched()
    ledger, index = Ledger(), Index()
    loaded, rows = load(paths, spool, options.columns, watch)
    for row in rows:
        ledger.add(row, options.tokens)
        index.count(row)
    num_rows = len(spool)
    eval_files = _load_eval(spool, options, index, watch)
    found = Examination(
        loaded, num_rows, facts_of(ledger), ledger, options, {c.name: Findings(c) for c in CHECKS}, eval_files
    )
    for fault in loaded.faults:
        found.findings[fault.name].add(fault.number, fault.why, fault.text)
    usable = _check_rows(found, index, watch)
    found.facts = replace(found.facts, mean_uncommon=index.mean_uncommon)
    _compare(found, index, usable, watch)
    for check in CHECKS:
        if check.of_set is not None:
            found.findings[check.name].of_set = check.of_set(found.facts) or ""
    return found


def _load_eval(spool: Spool, options: Options, index: Index, watch: Watch) -> Loaded | None:
    if not options.eval_paths:
        return None
    loaded, rows = load(options.eval_paths, spool, options.columns, watch)
    for row in rows:
        index.count(row)
    return loaded


def _check_rows(found: Examination, index: Index, watch: Watch) -> bytearray:
    """Which rows can be compared with others, one byte each."""
    usable = bytearray(len(found.loaded.spool))
    for place, row in enumerate(watch.follow("check rows", found.loaded.rows(), len(usable))):
        index.add(row)
        is_fit = True
        if place < found.num_rows:
            for check, why in faults_of(case_of(row, place, found)):
                found.findings[check.name].add(row.number, why, _excerpt(row, check.name))
                is_fit &= check.name not in NO_COMPARISON
        usable[place] = is_fit
    return usable


def faults_of(case: Case) -> Iterator[tuple[Check, str]]:
    """The checks of a row that find something, and what."""
    is_broken = False
    for check in CHECKS:
        if check.of_row is not None and not (is_broken and check.needs_words) and (why := check.of_row(case)):
            is_broken |= check.name == "encoding"
            yield check, why


def case_of(row: Row, place: int, found: Examination) -> Case:
    tokens = found.options.tokens
    rendered: Rendered | None = None
    if tokens.is_exact:
        rendered = _try_render(tokens, row)
    return Case(
        row=row,
        task=CODES[found.facts.task_of[place]],
        answer_tokens=found.ledger.answer_tokens[place],
        num_tokens=len(rendered) if rendered is not None else Estimate().length(row),
        max_length=found.options.max_length,
        facts=found.facts,
        rendered=rendered,
        ends=frozenset(tokens.ends) if isinstance(tokens, ModelTokens) else frozenset(),
    )


def _try_render(tokens: Tokens, row: Row) -> Rendered | None:
    """None where the template refuses the row: its roles are then what is wrong, and another check says so."""
    try:
        return tokens.render(row)
    except DataUnusable:
        return None


def _excerpt(row: Row, check: str) -> str:
    """The part of a row that shows it; personal data is not copied into reports."""
    if check in ("personal_data", "secret"):
        return mask(f"{row.user_text} → {row.answer}")
    if check in ("too_short", "too_long", "repetition", "eos_missing", "cut_off", "other_language"):
        return f"{row.user_text[:60]} → {row.answer}"
    return f"{row.user_text} → {row.answer}"


def _compare(found: Examination, index: Index, usable: bytearray, watch: Watch) -> None:
    loaded = found.loaded

    def same_answer(first: int, second: int) -> bool:
        return is_same_answer(loaded.row(first).answer, loaded.row(second).answer)

    near = index.near_pairs(loaded.row, watch)
    keys = [*found.ledger.question, *eval_keys(found)]
    ledger = found.ledger
    for match in matches(
        keys, ledger.exact, ledger.answer, near, found.num_rows, lambda place: bool(usable[place]), same_answer
    ):
        row, other = loaded.row(match.row), loaded.row(match.other)
        why = {
            "leakage": f"row {other.number} of the evaluation set",
            "conflict": f"row {other.number} answers: {shown(other.answer, 60)}",
        }
        found.findings[match.kind].add(
            row.number, why.get(match.kind, f"row {other.number}"), _excerpt(row, match.kind), other.number
        )
        if match.kind == CONFLICT and not match.is_minority:
            found.kept_answers.add(row.number)


def eval_keys(found: Examination) -> Iterator[int]:
    """Of the evaluation set's questions."""
    for place in range(found.num_rows, len(found.loaded.spool)):
        yield question_key(found.loaded.row(place))
