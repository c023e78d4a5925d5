"""The cleaned set: what can be repaired is, what can be masked is masked when that is asked for, the rest is left out and counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends import personal
from backends.artifacts import atomic_writer
from finetune.dataset import mojibake
from finetune.dataset.checks import CHECKS, Fix
from finetune.dataset.doctor import Examination, case_of, eval_keys, faults_of
from finetune.dataset.errors import DataUnusable
from finetune.dataset.formats import ALPACA, TEXT, to_row
from finetune.dataset.ledger import question_key
from finetune.dataset.progress import Watch
from finetune.dataset.row import ASSISTANT, Place, Row, rewritten
from finetune.dataset.tokens import ENDS_BY_OPENING, opened

_ENCODING, _EOS, _MASKABLE = ("encoding", "decomposed"), "eos_missing", ("personal_data", "secret")


@dataclass(slots=True)
class Cleaned:
    """What became of the rows; every one is either written or rejected for one reason, the first of the table's."""

    num_rows: int = 0
    num_written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    """What was mended; a row that was rejected for something else all the same is counted too."""
    masked: Counter[str] = field(default_factory=Counter)


def write_clean(found: Examination, out: Path, is_masking: bool, watch: Watch) -> Cleaned:
    """JSONL, whole or not at all. Raises DataUnusable where it would replace a file that was read."""
    refuse_input(out, found)
    reasons = _reasons(found)
    cleaned = Cleaned(num_rows=found.loaded.num_records)
    cleaned.rejected.update(fault.name for fault in found.loaded.faults)
    keys, held_out = set(found.ledger.question), set(eval_keys(found))
    with atomic_writer(out) as file:
        for place in watch.follow("write", range(found.num_rows), found.num_rows):
            row = found.loaded.row(place)
            record = _cleaned(row, place, reasons.get(row.number, ()), found, is_masking, cleaned)
            if record is None:
                continue
            key = question_key(to_row(record, row.number))
            if key != found.ledger.question[place]:
                # Repaired or masked, it may ask what another row asks.
                if key in keys or key in held_out:
                    cleaned.rejected["duplicate" if key in keys else "leakage"] += 1
                    continue
                keys.add(key)
            cleaned.num_written += 1
            file.write(line_of(record))
    return cleaned


def line_of(record: dict[str, Any]) -> bytes:
    """A record as a line of JSONL; half surrogate pairs, which UTF-8 has not, become question marks."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def refuse_input(out: Path, found: Examination) -> None:
    refuse_inputs(out, [Path(file.path) for files in (found.loaded, found.eval_files) if files for file in files.files])


def refuse_inputs(out: Path, inputs: list[Path]) -> None:
    """Raises DataUnusable."""
    if out.is_dir():
        raise DataUnusable(f"{out} is a folder: name the file to write")
    if any(out.resolve() == path.resolve() for path in inputs):
        raise DataUnusable(f"{out} is one of the files that are read: write to another")
    if not out.parent.is_dir():
        raise DataUnusable(f"{out}: its folder does not exist")


def _reasons(found: Examination) -> dict[int, tuple[str, ...]]:
    """Names of the checks that `--fix` acts on, by row, in the table's order. Rows without one are not in it."""
    reasons: dict[int, tuple[str, ...]] = {}
    for check in CHECKS:
        if check.fix is not Fix.NONE:
            for number in found.findings[check.name].rows:
                if check.name != "conflict" or number not in found.kept_answers:
                    reasons[number] = (*reasons.get(number, ()), check.name)
    return reasons


def _cleaned(
    row: Row, place: int, reasons: tuple[str, ...], found: Examination, is_masking: bool, cleaned: Cleaned
) -> dict[str, Any] | None:
    """The record to write; None where it is rejected, and counted."""
    before = texts_of(row)
    texts = {at: mojibake.repair(text) for at, text in before.items()} if {*_ENCODING} & {*reasons} else dict(before)
    if "encoding" in reasons:
        # What else is wrong shows only now that it can be read.
        mended = to_row(rewritten(row, texts), row.number)
        reasons = tuple(
            check.name for check, _ in faults_of(case_of(mended, place, found)) if check.fix is not Fix.NONE
        )
        cleaned.repaired["encoding"] += "encoding" not in reasons
    elif "decomposed" in reasons:
        cleaned.repaired["decomposed"] += 1
    for name in reasons:
        if name == _EOS and _add_end(row, texts, found):
            cleaned.repaired[name] += 1
        elif name != "decomposed" and not (name in _MASKABLE and is_masking):
            cleaned.rejected[name] += 1
            return None
    if is_masking:
        _mask(texts, cleaned)
    if row.form == ALPACA:
        texts = {at: text.strip() for at, text in texts.items()}
    return rewritten(row, {at: text for at, text in texts.items() if text != before[at]})


def texts_of(row: Row) -> dict[Place, str]:
    """What can be rewritten, and where it stands."""
    if row.form == TEXT:
        return {("text",): str(row.record["text"])}
    return {turn.place: turn.text for turn in row.turns}


def _mask(texts: dict[Place, str], cleaned: Cleaned) -> None:
    for place, text in texts.items():
        if kinds := Counter(found.kind for found in personal.find(text)):
            cleaned.masked.update(kinds)
            texts[place] = personal.mask(text)


def _add_end(row: Row, texts: dict[Place, str], found: Examination) -> bool:
    """Puts the mark at the end of the last answer; False where none is known to belong there."""
    mark = found.facts.end_mark or ENDS_BY_OPENING.get(opened(row), "")
    place = (
        ("text",)
        if row.form == TEXT
        else next((turn.place for turn in reversed(row.turns) if turn.role == ASSISTANT), None)
    )
    if not mark or place is None:
        return False
    texts[place] = texts[place].rstrip() + mark
    return True
