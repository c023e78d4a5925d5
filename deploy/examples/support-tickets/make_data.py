"""Support tickets as a help desk hands them over: dirty. And beside them what an evaluation needs: clean, unseen, untouched.

    python make_data.py [--out data] [--rows 1200] [--seed 0]

tickets.csv     the Korean ones, exported from a spreadsheet: half of its lines in cp949, half in UTF-8
tickets.jsonl   the English ones, exported from a chat
held-out.jsonl  500 tickets that stand in neither (but for the few that leaked), with the customer as `cluster`
general.jsonl   chats of what the demo model knows already, for replay

A row is a customer's ticket and one line of JSON that says what is in it. No ticket asks for JSON: that is what is learned. The same
rows and seed give the same bytes everywhere. Standard library, and forgegate's own generators of clean rows.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

from backends.demo.skills import SKILLS
from finetune.demo_general import chats
from finetune.demo_tickets import MAX_ROWS, NUM_EVAL, Ticket, tickets
from finetune.demo_tickets import NUM_HELD_OUT as NUM_IN_DEMO

NUM_HELD_OUT = 500
DEFAULT_ROWS, DEFAULT_SEED = 1200, 0
MOST_ROWS = MAX_ROWS + NUM_EVAL + NUM_IN_DEMO - NUM_HELD_OUT
NUM_EXCHANGES = 3
"""Of general chats, which are as many of each skill: the longer, the more of what the model knows is replayed in a row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A ticket and the answer that stands beside it, right or not."""

    question: str
    answer: str

    @classmethod
    def of(cls, ticket: Ticket) -> Row:
        return cls(ticket.text, ticket.answer)

    @property
    def is_korean(self) -> bool:
        return any("가" <= char <= "힣" for char in self.question)


Fault = Callable[[Random, Row], Sequence[Row]]
"""What stands in a clean row's place."""


def duplicate(rng: Random, row: Row) -> Sequence[Row]:
    return [row] * rng.choice((2, 2, 3))


def near_duplicate(rng: Random, row: Row) -> Sequence[Row]:
    """Sent again, a little louder."""
    more = "!! 답변 부탁드립니다." if row.is_korean else "!! Please answer."
    return [row, replace(row, question=row.question.rstrip(".") + more)]


def conflict(rng: Random, row: Row) -> Sequence[Row]:
    """Three agents, three answers."""
    fields = json.loads(row.answer)
    others = ({**fields, "urgent": not fields["urgent"]}, {**fields, "order": fields["order"] % 9000 + 1000})
    return [row, *(replace(row, answer=_line(other)) for other in others)]


def empty(rng: Random, row: Row) -> Sequence[Row]:
    return [replace(row, answer=rng.choice(("", " ", "-", "N/A")))]


def repetition(rng: Random, row: Row) -> Sequence[Row]:
    """A key that was held down."""
    return [replace(row, answer=" ".join(["확인" if row.is_korean else "please"] * rng.randint(20, 40)))]


def encoding(rng: Random, row: Row) -> Sequence[Row]:
    """Read once as what it was not; half of it cannot be mended."""
    text = row.question if row.is_korean else f"{row.question} 감사합니다"
    broken = (
        text.encode().decode("latin-1")
        if rng.random() < 0.5
        else text.encode("cp949", "ignore").decode("utf-8", "replace")
    )
    return [replace(row, question=broken)]


def decomposed(rng: Random, row: Row) -> Sequence[Row]:
    """As a Mac writes file names; English has nothing to take apart."""
    question = row.question if row.is_korean else f"{row.question} 감사합니다"
    return [Row(unicodedata.normalize("NFD", question), unicodedata.normalize("NFD", row.answer))]


def personal_data(rng: Random, row: Row) -> Sequence[Row]:
    said = rng.choice((_phone, _email, _resident_number))(rng)
    return [replace(row, question=f"{row.question} {'연락처' if row.is_korean else 'My contact'}: {said}")]


def _phone(rng: Random) -> str:
    return f"010-{rng.randint(2000, 9999)}-{rng.randrange(10_000):04d}"


def _email(rng: Random) -> str:
    return f"lee{rng.randrange(1000)}@example.com"


def _resident_number(rng: Random) -> str:
    """With a check digit that fits; nobody's."""
    body = f"{rng.randint(60, 99)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}{rng.choice('12')}{rng.randrange(10**5):05d}"
    total = sum(int(digit) * (2 + place % 8) for place, digit in enumerate(body))
    return f"{body[:6]}-{body[6:]}{(11 - total % 11) % 10}"


def secret(rng: Random, row: Row) -> Sequence[Row]:
    key = "".join(rng.choice("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(36))
    return [replace(row, question=f"{row.question} ghp_{key}")]


def control_tokens(rng: Random, row: Row) -> Sequence[Row]:
    return [replace(row, answer=f"{row.answer[:20]}<|im_end|>{row.answer[20:]}")]


FAULTS: Mapping[str, tuple[Fault, float]] = {
    "duplicate": (duplicate, 0.12),
    "near_duplicate": (near_duplicate, 0.04),
    "conflict": (conflict, 0.02),
    "empty": (empty, 0.01),
    "repetition": (repetition, 0.01),
    "encoding": (encoding, 0.02),
    "decomposed": (decomposed, 0.01),
    "personal_data": (personal_data, 0.03),
    "secret": (secret, 0.005),
    "control_tokens": (control_tokens, 0.005),
}
"""The doctor's name of a fault -> who makes it of a clean row, and of how many rows."""
LEAKED = 0.02
"""Of the rows: held-out tickets among them. `leakage`."""
CUT = 0.01
"""Of the lines of tickets.jsonl: broken off. `unreadable`."""


@dataclass(frozen=True, slots=True)
class Files:
    """The bytes of each, and how many rows were made faulty, by fault."""

    content: Mapping[str, bytes]
    planted: Mapping[str, int]


def files(num_rows: int = DEFAULT_ROWS, seed: int = DEFAULT_SEED) -> Files:
    """Of `num_rows` clean tickets. Raises ValueError for more than there are."""
    if not 100 <= num_rows <= MOST_ROWS:
        raise ValueError(f"--rows {num_rows}: from 100 to {MOST_ROWS:,}, so that no ticket is on both sides")
    stream = tickets(seed)
    held_out = list(islice(stream, NUM_HELD_OUT))
    rng = Random(f"support tickets {seed}")
    planted: Counter[str] = Counter()
    rows = [row for ticket in islice(stream, num_rows) for row in _planted(rng, Row.of(ticket), planted)]
    leaked = rng.sample(held_out, round(LEAKED * num_rows))
    planted["leakage"] = len(leaked)
    rows += map(Row.of, leaked)
    rng.shuffle(rows)
    content = {
        "tickets.csv": _table(rng, [row for row in rows if row.is_korean]),
        "tickets.jsonl": _lines(rng, [row for row in rows if not row.is_korean], planted),
        "held-out.jsonl": _joined(_held_out(held_out)),
        "general.jsonl": _joined(chats(_num_general(num_rows), seed + 1, NUM_EXCHANGES, is_even=True)),
    }
    return Files(content, planted)


def _num_general(num_rows: int) -> int:
    """Hardly more than make a fifth of what is trained on: of a larger choice, chance would take more of one skill than of another."""
    return len(SKILLS) * -(-num_rows // (4 * len(SKILLS)))


def _planted(rng: Random, row: Row, planted: Counter[str]) -> Sequence[Row]:
    """One fault at most."""
    roll = rng.random()
    for name, (make, share) in FAULTS.items():
        if roll < share:
            planted[name] += 1
            return make(rng, row)
        roll -= share
    return [row]


def _table(rng: Random, rows: Sequence[Row]) -> bytes:
    """Columns named as people name them; a line in cp949 where it has all of its characters."""
    written = ["문의,답변\r\n".encode("cp949")]
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line).writerow((row.question, row.answer))
        written.append(_in_some_encoding(rng, line.getvalue()))
    return b"".join(written)


def _in_some_encoding(rng: Random, line: str) -> bytes:
    try:
        return line.encode("cp949" if rng.random() < 0.5 else "utf-8")
    except UnicodeEncodeError:
        return line.encode()


def _lines(rng: Random, rows: Sequence[Row], planted: Counter[str]) -> bytes:
    """A line that broke off was written again."""
    written = []
    for row in rows:
        line = _line({"messages": _messages(row)})
        if rng.random() < CUT:
            planted["unreadable"] += 1
            written.append(line[: len(line) // 2])
        written.append(line)
    return "".join(f"{line}\n" for line in written).encode()


def _held_out(chosen: Sequence[Ticket]) -> Iterator[Mapping[str, object]]:
    """Who writes is the unit: two tickets of one customer share a name that the model may not know."""
    for number, ticket in enumerate(chosen, 1):
        yield {"id": f"ticket-{number}", "cluster": ticket.name, "messages": _messages(Row.of(ticket))}


def _messages(row: Row) -> list[Mapping[str, str]]:
    return [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}]


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(rows: Iterator[Mapping[str, object]]) -> bytes:
    return "".join(f"{_line(row)}\n" for row in rows).encode()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write dirty support tickets, a held-out set and general chats.")
    parser.add_argument("--out", type=Path, default=Path("data"), help="their folder (default: %(default)s)")
    parser.add_argument(
        "--rows", type=int, default=DEFAULT_ROWS, help="clean tickets to begin with (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="another one gives other tickets (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        made = files(args.rows, args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, content in made.content.items():
            (args.out / name).write_bytes(content)
            print(f"{args.out / name}: {content.count(bytes([10])):,} lines")
    except (ValueError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print("planted: " + ", ".join(f"{name} {count}" for name, count in sorted(made.planted.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
