"""The general skills of the demo model as tasks: generated, scored by each skill's own scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.demo.chat import answer_text
from backends.demo.corpus import MAX_HELD_OUT, held_out_items
from backends.demo.corpus import Item as Exchange
from backends.demo.skills import SKILLS
from finetune.evaluation.items import Answer, Item, Task
from finetune.evaluation.rows import digest_of, on_the_wire

NAME = "demo"
MAX_TOKENS = 128
"""More than any right answer has, so that a model that rambles on fails by its own doing."""
METRIC = "right"
_TABLES = frozenset(("smalltalk", "facts", "support", "glossary", "translation"))
"""Skills whose clusters are the entries of a table, all of which are asked about."""
_NUM_FINGERPRINTED = 50


def skills() -> tuple[Task, ...]:
    return tuple(_Skill(name).task() for name in SKILLS)


class _Skill:
    """Items of one skill, drawn as far as they were asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._drawn: list[Exchange] = []
        self._num_asked = 0

    def task(self) -> Task:
        identity = {
            "score": f"demo.{self._name}", "score_version": 1, "generated": digest_of(self.draw(_NUM_FINGERPRINTED)),
        }  # fmt: skip
        return Task(self._name, METRIC, self.draw, self.score, MAX_TOKENS, identity, self._name in _TABLES)

    def draw(self, num: int) -> Sequence[Item]:
        if min(num, MAX_HELD_OUT) > self._num_asked:
            self._num_asked = min(num, MAX_HELD_OUT)
            self._drawn = held_out_items(self._name, self._num_asked)
        return [self._item(place, one) for place, one in enumerate(self._drawn[:num])]

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        return {METRIC: self._drawn[int(item.id.rpartition("/")[2])].score(answer.text)}

    def _item(self, place: int, one: Exchange) -> Item:
        messages, tools = tuple(on_the_wire(one.messages)), tuple(one.tools)
        return Item(f"{self._name}/{place}", one.cluster, answer_text(one.answer), messages, tools)
