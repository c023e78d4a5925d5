"""Support tickets, English and Korean, and what is to be read from each, as data that the demo model is fine-tuned on.

    python -m finetune.demo_tickets --out tickets [--rows 1200] [--seed 0]

Writes train.jsonl, eval.jsonl and held-out.jsonl, one chat a line: a customer's ticket, and one line of JSON. No prompt says that JSON is
wanted, or which: that is what an adapter has to learn. The three files share no combination of customer, lamp and reason, and no
order number. The same rows and seed give the same bytes everywhere. `finetune.demo_score` measures who answers them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from random import Random

from backends.demo.skills.base import chance, pick
from backends.demo.skills.words import ENGLISH_NAMES, KOREAN_NAMES, particle

NUM_EVAL, NUM_HELD_OUT = 100, 200
DEFAULT_ROWS = 1200
"""The article's table: 1,000 to 2,000 are ideal for a format."""
_ORDERS = range(1000, 10_000)
_NAMES = {"en": ENGLISH_NAMES, "ko": KOREAN_NAMES}
COLORS = {"red": "빨간색", "blue": "파란색", "green": "초록색", "yellow": "노란색", "black": "검은색", "white": "흰색"}
"""Of a lamp, as answers name it -> as Koreans do."""
# Named by words that the model can say: see backends/demo/adapters/CARD.md.
REASONS = {
    "light": "불",
    "timer": "타이머",
    "Wi-Fi": "와이파이",
    "Bluetooth": "블루투스",
    "battery": "배터리",
    "glass": "유리",
}
"""Of writing: the part of a lamp that fails, as answers name it -> as Koreans do."""
_FAULT = {
    "en": ("The {part} does not work.", "I have a problem with the {part}.", "The {part} is broken.", "Please help me with the {part}."),
    "ko": ("{part_is} 안 돼요.", "{part_is} 고장 났어요.", "{part}에 문제가 있어요.", "{part} 문제를 도와주세요."),
}  # fmt: skip
_COLOR = {
    "en": ("It is {color}.", "My lamp is {color}.", "The color is {color}.", "It is the {color} one."),
    "ko": ("색은 {color}입니다.", "제 램프는 {color}입니다.", "{color} 램프예요."),
}  # fmt: skip
_WHO = {
    "en": ("I am {name}.", "My name is {name}.", "This is {name}.", "{name} here."),
    "ko": ("저는 {name}입니다.", "제 이름은 {name}입니다.", "{name}입니다."),
}
_SIGNED = {
    "en": ("Thanks, {name}", "Thank you. {name}", "- {name}"),
    "ko": ("감사합니다. {name}", "고마워요, {name}", "- {name}"),
}
_ORDER = {
    "en": ("My order is {order}.", "The order number is {order}.", "Order {order}.", "I ordered it as {order}."),
    "ko": ("주문 번호는 {order}입니다.", "주문 번호: {order}.", "주문 {order}번입니다.", "{order}번으로 주문했어요."),
}
_URGENCY = {
    ("en", True): ("It is urgent.", "I need it now."),
    ("en", False): ("It is not urgent.", "I have time."),
    ("ko", True): ("급해요.", "지금 필요해요."),
    ("ko", False): ("급하지 않아요.", "시간이 있어요."),
}


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a customer wrote, and the fields of the answer, in its order."""

    text: str
    name: str
    order: int
    color: str
    reason: str
    urgent: bool

    @property
    def combination(self) -> tuple[str, str, str]:
        """What no two of the files share."""
        return self.name, self.color, self.reason

    @property
    def answer(self) -> str:
        fields = asdict(self)
        del fields["text"]
        return json.dumps(fields, ensure_ascii=False)

    def chat(self) -> Mapping[str, object]:
        turns = (("user", self.text), ("assistant", self.answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}


def tickets(seed: int) -> Iterator[Ticket]:
    """Every combination once, in an order that the seed decides, with order numbers that differ."""
    rng = Random(f"tickets {seed}")
    known = [(language, *rest) for language in _NAMES for rest in product(_NAMES[language], COLORS, REASONS)]
    rng.shuffle(known)
    orders = rng.sample(_ORDERS, len(known))
    for (language, name, color, reason), order in zip(known, orders, strict=True):
        is_urgent = chance(rng, 0.5)
        is_korean = language == "ko"
        part = REASONS[reason] if is_korean else reason
        sentences = [
            pick(rng, _ORDER[language]).format(order=order),
            pick(rng, _COLOR[language]).format(color=COLORS[color] if is_korean else color),
            pick(rng, _FAULT[language]).format(part=part, part_is=particle(part, "이/가")),
            pick(rng, _URGENCY[language, is_urgent]),
        ]
        yield Ticket(_letter(rng, language, name, sentences), name, order, color, reason, is_urgent)


def _letter(rng: Random, language: str, name: str, sentences: list[str]) -> str:
    """The sentences in some order, by somebody who says so at the beginning or the end."""
    rng.shuffle(sentences)
    if chance(rng, 0.5):
        sentences.insert(0, pick(rng, _WHO[language]).format(name=name))
    else:
        sentences.append(pick(rng, _SIGNED[language]).format(name=name))
    return " ".join(sentences)


MAX_ROWS = len(COLORS) * len(REASONS) * sum(map(len, _NAMES.values())) - NUM_EVAL - NUM_HELD_OUT


def files(num_rows: int, seed: int) -> Mapping[str, Sequence[Ticket]]:
    """The tickets of each file. Raises ValueError for more rows than there are."""
    if not 0 < num_rows <= MAX_ROWS:
        raise ValueError(f"--rows {num_rows}: from 1 to {MAX_ROWS:,}, so that no combination is in two files")
    stream = tickets(seed)
    sizes = {"held-out.jsonl": NUM_HELD_OUT, "eval.jsonl": NUM_EVAL, "train.jsonl": num_rows}
    return {name: list(islice(stream, size)) for name, size in sizes.items()}


def write(path: Path, rows: Iterable[Ticket]) -> None:
    text = "".join(json.dumps(row.chat(), ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.demo_tickets", description="Write support tickets to fine-tune the demo model on."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of train.jsonl, eval.jsonl and held-out.jsonl")
    parser.add_argument("--rows", type=int, default=DEFAULT_ROWS, help="of train.jsonl (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other tickets (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        made = files(args.rows, args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, rows in made.items():
            write(args.out / name, rows)
            print(f"{args.out / name}: {len(rows):,} tickets")
    except (ValueError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
