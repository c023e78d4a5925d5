"""Measure a model on held-out items: greedy answers in batches, one accuracy per skill."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backends.demo.batches import ChatEncoder
from backends.demo.corpus import Item, held_out_items, num_clusters
from backends.demo.generation import generate
from backends.demo.model import Llama
from backends.demo.shapes import IM_END_ID
from backends.demo.skills import SKILLS

# Longer than any expected answer, so that a model that rambles on fails by its own doing.
MAX_NEW_TOKENS = 128
HasMissed = Callable[[Item, str], bool]


@dataclass(frozen=True, slots=True)
class Miss:
    """A wrong answer, kept for whoever wants to see what goes wrong."""

    question: str
    expected: str
    answer: str


@dataclass(frozen=True, slots=True)
class SkillResult:
    """Accuracy of one skill over `num_items` held-out items, which fall into `num_clusters` independent ones."""

    skill: str
    accuracy: float
    num_items: int
    num_clusters: int
    misses: tuple[Miss, ...]

    @property
    def standard_error(self) -> float:
        """Of the accuracy, as if the clusters were the sample: the cautious reading."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / max(1, min(self.num_items, self.num_clusters)))


def evaluate(
    model: Llama, encoder: ChatEncoder, num_items: int, batch_size: int, num_misses: int = 5
) -> list[SkillResult]:
    """Greedy accuracy of every skill on its first `num_items` held-out items."""
    items = [item for name in SKILLS for item in held_out_items(name, num_items)]
    answers = answer_all(model, encoder, items, batch_size)
    return [_result(name, items, answers, num_misses) for name in SKILLS]


def answer_all(
    model: Llama,
    encoder: ChatEncoder,
    items: Sequence[Item],
    batch_size: int,
    has_missed: HasMissed | None = None,
) -> list[str]:
    """The model's greedy answer to every item, in the items' order; items of similar length share a batch.

    `has_missed` is asked of what an answer begins with, and one that has is cut: for scores, which are the same, a model that rambles on
    costs no more than another.
    """
    prompts = [encoder.prompt(item) for item in items]
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    answers = [""] * len(items)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        asked = [(items[i], prompts[i]) for i in batch]
        for index, answer in zip(batch, _answers(model, encoder, asked, has_missed), strict=True):
            answers[index] = answer
    return answers


def _answers(
    model: Llama, encoder: ChatEncoder, asked: Sequence[tuple[Item, Sequence[int]]], has_missed: HasMissed | None
) -> list[str]:
    """Of one batch: items with their prompts."""

    def is_settled(place: int, ids: Sequence[int]) -> bool:
        return has_missed is not None and has_missed(asked[place][0], encoder.begun(ids))

    produced = generate(model, [prompt for _, prompt in asked], MAX_NEW_TOKENS, IM_END_ID, is_settled)
    return [encoder.decode(ids) for ids in produced]


def _result(name: str, items: Sequence[Item], answers: Sequence[str], num_misses: int) -> SkillResult:
    own = [(item, answer) for item, answer in zip(items, answers, strict=True) if item.skill == name]
    scores = [item.score(answer) for item, answer in own]
    wrong = [pair for pair, score in zip(own, scores, strict=True) if score == 0.0]
    misses = tuple(
        Miss(str(item.messages[-1]["content"]), item.expected, answer[:300]) for item, answer in wrong[:num_misses]
    )
    return SkillResult(name, sum(scores) / len(scores), len(own), num_clusters([item for item, _ in own]), misses)


def mean_accuracy(results: Sequence[SkillResult]) -> float:
    """The mean over skills, each with equal weight."""
    return sum(result.accuracy for result in results) / len(results)
