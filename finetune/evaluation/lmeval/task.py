"""A task file's documents as items, and their scores."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from finetune.dataset.json_stream import Unreadable
from finetune.dataset.reading import Source
from finetune.errors import RecipeUnusable
from finetune.evaluation.items import Answer, Item, Task
from finetune.evaluation.lmeval.config import MULTIPLE_CHOICE, Config, Exactness
from finetune.evaluation.lmeval.template import Row, choices_of, place_of, targets_of, text_of
from finetune.evaluation.rows import digest_of

_VERSION = 1
_BETWEEN = "\x1f"
"""Between several right answers of an item."""
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_DIGITS = str.maketrans("", "", string.digits)


def items_of(config: Config, folder: Path) -> list[Item]:
    """One for each document, in an order that their ids decide. Raises RecipeUnusable with the document that is at fault, DataError."""
    rows = _rows(folder, config, config.split)
    examples = _examples(config, folder)
    found = []
    for number, row in enumerate(rows, 1):
        with_place = f"{config.name}: document {number} of {config.data_files[config.split]}"
        try:
            own = [text for example, text in examples if example != row][: config.num_fewshot]
            found.append(_item(config, row, config.description + "".join(own), number))
        except RecipeUnusable as exc:
            raise RecipeUnusable(f"{with_place}: {exc}") from exc
    return sorted(found, key=lambda item: hashlib.sha256(item.id.encode()).digest())


def task_of(name: str, configs: Sequence[tuple[Config, Sequence[Item]]]) -> Task:
    """Of one file, or of several that are one benchmark: their items together, each counted alike."""
    items = sorted(
        (item for _, own in configs for item in own), key=lambda item: hashlib.sha256(item.id.encode()).digest()
    )
    by_task = {config.name: config for config, _ in configs}
    metrics = list(dict.fromkeys(metric for config, _ in configs for metric in metrics_of(config)))

    def score(item: Item, answer: Answer) -> Mapping[str, float]:
        return scores_of(by_task[item.id.rpartition("/")[0]], item, answer)

    identity = {"lm_eval": [config.told for config, _ in configs], "score_version": _VERSION, "rows": digest_of(items)}
    main = "acc_norm" if "acc_norm" in metrics else metrics[0]
    return Task(name, main, lambda num: items[:num], score, max(config.max_gen_toks for config, _ in configs), identity)


def metrics_of(config: Config) -> tuple[str, ...]:
    """As they are reported: `acc`, `acc_norm`, `exact_match`, with several filters `exact_match,NAME`."""
    if config.output_type == MULTIPLE_CHOICE:
        return config.metrics or ("acc", "acc_norm")
    names = [one.name for one in config.filters]
    return tuple(f"exact_match,{name}" for name in names) if names else ("exact_match",)


def scores_of(config: Config, item: Item, answer: Answer) -> dict[str, float]:
    if config.output_type == MULTIPLE_CHOICE:
        return _choice_scores(config, item, answer.scores)
    wanted = item.expected.split(_BETWEEN)
    texts = {f"exact_match,{one.name}": one.apply(answer.text) for one in config.filters}
    return {
        metric: float(any(_plain(text, config.exactness) == _plain(each, config.exactness) for each in wanted))
        for metric, text in (texts or {"exact_match": answer.text}).items()
    }


def _choice_scores(config: Config, item: Item, sums: Sequence[float]) -> dict[str, float]:
    """`acc`: the likeliest choice is the right one; `acc_norm`: the likeliest per character. Of equal ones the first counts."""
    per_char = [total / max(1, length) for total, length in zip(sums, item.lengths, strict=True)]
    found = {"acc": float(_best(sums) == item.right), "acc_norm": float(_best(per_char) == item.right)}
    return {metric: found[metric] for metric in metrics_of(config)}


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: (values[place], -place))


def _item(config: Config, row: Row, before: str, number: int) -> Item:
    prompt = before + text_of(config.doc_to_text, row)
    name = f"{config.name}/{number}"
    if config.output_type == MULTIPLE_CHOICE:
        choices = choices_of(config.doc_to_choice, row)
        right = place_of(config.doc_to_target, row, choices)
        return Item(
            name, name, choices[right], kind="choose", prompt=prompt, right=right, lengths=tuple(map(len, choices)),
            choices=tuple(config.target_delimiter + choice for choice in choices),
        )  # fmt: skip
    wanted = targets_of(config.doc_to_target, row)
    return Item(name, name, _BETWEEN.join(wanted), kind="generate", prompt=prompt, stop=config.stop)


def _examples(config: Config, folder: Path) -> list[tuple[Row, str]]:
    """Solved documents, one more than are shown: none stands before itself."""
    if not config.num_fewshot:
        return []
    rows = _rows(folder, config, config.fewshot_split)
    if len(rows) < config.num_fewshot:
        raise RecipeUnusable(f"{config.name}: {config.num_fewshot} examples are wanted, the split has {len(rows)}")
    return [(row, _solved(config, row)) for row in rows[: config.num_fewshot + 1]]


def _solved(config: Config, row: Row) -> str:
    if config.output_type == MULTIPLE_CHOICE:
        choices = choices_of(config.doc_to_choice, row)
        target = choices[place_of(config.doc_to_target, row, choices)]
    else:
        target = targets_of(config.doc_to_target, row)[0]
    return text_of(config.doc_to_text, row) + config.target_delimiter + target + config.fewshot_delimiter


def _rows(folder: Path, config: Config, split: str) -> list[Row]:
    """Raises DataError, RecipeUnusable."""
    return list(_read(folder / config.data_files[split], config.name))


def _read(path: Path, name: str) -> Iterator[Row]:
    for number, record in enumerate(Source(path).records(), 1):
        if isinstance(record, Unreadable) or not isinstance(record, dict):
            raise RecipeUnusable(f"{name}: record {number} of {path} is no object with fields")
        yield record


def _plain(text: str, exactness: Exactness) -> str:
    """In the order of the `exact_match` metric that lm-eval uses."""
    for pattern in exactness.regexes_to_ignore:
        text = re.sub(pattern, "", text)
    if exactness.ignore_case:
        text = text.lower()
    if exactness.ignore_punctuation:
        text = text.translate(_NO_PUNCTUATION)
    return text.translate(_NO_DIGITS) if exactness.ignore_numbers else text
