"""`forgegate data collect`: the gateway's log of conversations to rows."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends import personal
from backends.artifacts import atomic_writer
from finetune.dataset.conversations import PART, REASONS, Conversation, read_line
from finetune.dataset.errors import DataUnusable
from finetune.dataset.fix import line_of, refuse_inputs
from finetune.dataset.progress import Unwatched, Watch, watch
from finetune.dataset.sift import DUPLICATES, faults
from finetune.dataset.spool import Spool

DONE = 0


@dataclass(slots=True)
class Collected:
    """Every conversation was either written or left out for one reason."""

    files: tuple[str, ...]
    num_read: int = 0
    num_others: int = 0
    """Of models that were not asked for."""
    num_written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    """What was still found, by kind."""

    def as_json(self) -> dict[str, Any]:
        return {
            "files": list(self.files), "read": self.num_read, "of_other_models": self.num_others, "written": self.num_written,
            "left_out": {name: self.left_out[name] for name in REASONS if self.left_out[name]}, "masked": dict(self.masked),
        }  # fmt: skip


def run_collect(args: argparse.Namespace) -> int:
    """Raises DataError."""
    with watch() as bars:
        found = collect(args.from_access_log, args.out, frozenset(args.model or ()), bars)
    print(json.dumps(found.as_json(), ensure_ascii=False) if args.json else "\n".join(_lines(found, args.out)))
    return DONE


def collect(
    logs: Sequence[Path], out: Path, models: frozenset[str] = frozenset(), watch: Watch | None = None
) -> Collected:
    """`models`: names that were asked for; none: all. `out` is whole or not written at all. Raises DataError."""
    files = files_of(logs)
    refuse_inputs(out, files)
    found = Collected(tuple(map(str, files)))
    with tempfile.TemporaryDirectory(prefix="forgegate-collect-") as folder, Spool() as spool:
        beginnings = _read(files, models, spool, found, watch or Unwatched())
        rows = Path(folder) / "rows.jsonl"
        with rows.open("wb") as file:
            file.writelines(map(line_of, _masked(_longest(spool, beginnings, found), found)))
        reasons = faults([rows], DUPLICATES, watch) if rows.stat().st_size else {}
        with rows.open("rb") as file, atomic_writer(out) as written:
            for number, line in enumerate(file, 1):
                if number in reasons:
                    found.left_out[reasons[number]] += 1
                else:
                    found.num_written += 1
                    written.write(line)
    out.chmod(0o600)  # what people wrote
    return found


def files_of(logs: Sequence[Path]) -> list[Path]:
    """Each with those that it was renamed to when it was full, the oldest first. Raises DataUnusable."""
    found: dict[Path, Path] = {}
    for log in logs:
        older = [path for path in log.parent.glob("*") if re.fullmatch(rf"{re.escape(log.name)}\.\d+", path.name)]
        ordered = sorted(older, key=lambda path: -int(path.suffix[1:]))
        if not log.is_file() and not ordered:
            raise DataUnusable(f"{log}: no such file: forgegate.yaml names it under conversations.file")
        for path in (*ordered, *([log] if log.is_file() else ())):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _read(files: Sequence[Path], models: frozenset[str], spool: Spool, found: Collected, watch: Watch) -> set[bytes]:
    """Conversations go to the spool; returns how longer ones begin."""
    beginnings: set[bytes] = set()
    for line in watch.follow("read", _lines_of(files), None):
        conversation = read_line(line)
        if isinstance(conversation, str):
            found.num_read += 1
            found.left_out[conversation] += 1
        elif models and not models & {
            conversation.model,
            conversation.resolved,
            conversation.resolved.partition("@")[0],
        }:
            found.num_others += 1
        else:
            found.num_read += 1
            beginnings.update(conversation.beginnings())
            spool.append((conversation.model, conversation.resolved, conversation.messages))
    return beginnings


def _lines_of(files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())


def _longest(spool: Spool, beginnings: set[bytes], found: Collected) -> Iterator[Conversation]:
    for model, resolved, messages in spool:
        conversation = Conversation(model, resolved, messages)
        if conversation.digest() in beginnings:
            found.left_out[PART] += 1
        else:
            yield conversation


def _masked(conversations: Iterable[Conversation], found: Collected) -> Iterator[dict[str, Any]]:
    """Also where the gateway has masked it already: it may have been told not to."""
    for conversation in conversations:
        for _, text in conversation.messages:
            found.masked.update(each.kind for each in personal.find(text))
        masked = tuple((role, personal.mask(text)) for role, text in conversation.messages)
        yield Conversation(conversation.model, conversation.resolved, masked).record()


def _lines(found: Collected, out: Path) -> Iterator[str]:
    yield f"{out}: {found.num_written:,} rows of {found.num_read:,} conversations in {len(found.files)} file(s)"
    if found.num_others:
        yield f"  {found.num_others:,} of other models were not looked at"
    for name, words in REASONS.items():
        if found.left_out[name]:
            yield f"  left out {found.left_out[name]:,}: {words}"
    for kind, count in sorted(found.masked.items()):
        yield f"  masked {count:,}: {kind}"
    if found.num_written:
        yield f"next: forgegate data doctor {out}"
