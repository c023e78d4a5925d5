"""What the demo family is trained and measured on: conversations that mix the named skills, generated, seeded, pure.

    python -m backends.demo.corpus --show 5 [--skill facts] [--held-out]

Training and held-out items share no key (see `Exchange.key`) by construction: a digest of the key decides on which side it lies.
The same seed gives the same items in every process and on every Python.
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from backends.demo.chat import Message, answer_text, render
from backends.demo.skills import SKILLS, Exchange, Skill, is_held_out
from backends.demo.skills.base import chance, pick

MAX_HELD_OUT = 4000
# Calls in a row that yield nothing new before a skill is taken to be exhausted.
_PATIENCE = 4000
_PLAIN_SYSTEM = (
    "You are a helpful assistant.", "You are Forge, a small demo model.", "Be helpful and brief.", "You are a friendly assistant.",
    "당신은 친절한 도우미입니다.", "You are a helpful AI assistant that answers questions.",
    "Answer the user's questions.", "짧고 정확하게 답하세요.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to learn or to be measured on: `messages` is the prompt, `answer` the assistant message that should follow."""

    skill: str
    cluster: str
    messages: tuple[Message, ...]
    answer: Message
    check: tuple[str, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def expected(self) -> str:
        """The text that the model should generate, without the end token."""
        return answer_text(self.answer)

    def score(self, answer: str) -> float:
        """1.0 or 0.0 by the skill's scorer; `answer` is generated text, control tokens of tool calls included."""
        return SKILLS[self.skill].score(self.check, answer)

    def conversation(self) -> tuple[Message, ...]:
        return (*self.messages, self.answer)

    def texts(self) -> Iterator[str]:
        """The pieces of text that are tokenised, without control tokens."""
        return (part.text for part in render(self.conversation(), self.tools) if not part.is_control)


def draw(skill: Skill, rng: Random, held_out: bool) -> Exchange:
    """The next exchange of the wanted split."""
    while True:
        exchange = skill.draw(rng)
        if is_held_out(skill.name, exchange.key) == held_out:
            return exchange


def training_items(seed: int, count: int, is_long: bool = False) -> Iterator[Item]:
    """`count` training conversations, with `is_long` of 10 to 40 exchanges. Seeds are independent streams."""
    rng = Random(f"train {seed} {is_long}")
    wheel = _wheel()
    for _ in range(count):
        yield _conversation(rng, wheel, 10 + rng.randrange(30) if is_long else pick(rng, _OTHERS))


def held_out_items(skill_name: str, count: int, seed: int = 0) -> list[Item]:
    """Up to `count` different held-out items of a skill, fewer where it has fewer; the first n are the same for every count >= n.

    Raises ValueError for more than MAX_HELD_OUT, KeyError for an unknown skill.
    """
    if count > MAX_HELD_OUT:
        raise ValueError(f"at most {MAX_HELD_OUT} items, not {count}")
    skill, rng = SKILLS[skill_name], Random(f"held out {skill_name} {seed}")
    items: list[Item] = []
    seen: set[str] = set()
    misses = 0
    while len(items) < count and misses < _PATIENCE:
        exchange = draw(skill, rng, held_out=True)
        # A third of the items follow another, learnt exchange, as questions do in a chat.
        before = draw(pick(rng, _NEUTRAL), rng, held_out=False).turns if chance(rng, 0.33) else ()
        mark = repr((exchange.system, exchange.turns))
        misses += 1
        if mark not in seen:
            seen.add(mark)
            misses = 0
            items.append(_item(skill.name, exchange, before))
    return items


def num_clusters(items: Sequence[Item]) -> int:
    """How many independent units the items consist of."""
    return len({item.cluster for item in items})


_OTHERS = (0, 0, 1, 1, 2, 3)  # how many exchanges come before the one that an item is named for
_NEUTRAL = tuple(SKILLS[name] for name in ("smalltalk", "arithmetic", "facts", "glossary", "unknown", "support"))


@functools.cache
def _wheel() -> tuple[Skill, ...]:
    """Every skill as often as its weight says, for uniform draws."""
    return tuple(skill for skill in SKILLS.values() for _ in range(round(10 * skill.weight)))


def _conversation(rng: Random, wheel: tuple[Skill, ...], num_others: int) -> Item:
    """One exchange that may carry a system prompt and tools, before or after others that do not."""
    skill = pick(rng, wheel)
    first = draw(skill, rng, held_out=False)
    if first.system or num_others == 0:
        return _item(skill.name, first, (), None if first.system or first.tools else _plain_system(rng))
    before = tuple(turn for _ in range(num_others) for turn in _filler(rng, wheel, bool(first.tools)).turns)
    return _item(skill.name, first, before, None if first.tools else _plain_system(rng))


def _filler(rng: Random, wheel: tuple[Skill, ...], has_tools: bool) -> Exchange:
    """An exchange without system prompt and tools; beside tools, one that no tool could be meant for."""
    while True:
        exchange = draw(pick(rng, _NEUTRAL if has_tools else wheel), rng, held_out=False)
        if not exchange.system and not exchange.tools:
            return exchange


def _plain_system(rng: Random) -> str | None:
    return pick(rng, _PLAIN_SYSTEM) if chance(rng, 0.2) else None


def _item(skill: str, exchange: Exchange, before: tuple[Message, ...], system: str | None = None) -> Item:
    system = exchange.system or system
    head = ({"role": "system", "content": system},) if system else ()
    if exchange.system:
        before = ()  # what came before would have to obey the system prompt too
    messages = (*head, *before, *exchange.turns)
    return Item(skill, exchange.cluster, messages[:-1], messages[-1], exchange.check, exchange.tools)


def main() -> None:
    parser = argparse.ArgumentParser(description="Show samples of the demo corpus.")
    parser.add_argument("--show", type=int, default=3, help="how many conversations")
    parser.add_argument("--skill", choices=sorted(SKILLS), help="only this skill")
    parser.add_argument("--held-out", action="store_true", help="from the held-out split")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = [args.skill] if args.skill else list(SKILLS)
    if args.held_out:
        shown = [item for name in names for item in held_out_items(name, args.show, args.seed)]
    else:
        stream = (item for item in training_items(args.seed, sys.maxsize) if item.skill in names)
        shown = [next(stream) for _ in range(args.show)]
    for item in shown:
        print(f"--- {item.skill} / {item.cluster}")
        print("".join(part.text for part in render(item.conversation(), item.tools)))


if __name__ == "__main__":
    main()
