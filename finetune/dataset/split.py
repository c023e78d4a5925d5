"""Training and evaluation sets that share no question: near duplicates stay on one side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from backends.artifacts import atomic_writer
from finetune.dataset.duplicates import Index
from finetune.dataset.errors import DataUnusable
from finetune.dataset.fix import line_of, refuse_inputs
from finetune.dataset.ledger import question_key
from finetune.dataset.loading import Loaded, load
from finetune.dataset.progress import Watch
from finetune.dataset.row import Row
from finetune.dataset.similarity import Clusters
from finetune.dataset.spool import Spool


@dataclass(frozen=True, slots=True)
class Parts:
    """How many rows went where."""

    num_train: int
    num_eval: int
    num_clusters: int
    """Groups of at least two rows that were kept together."""
    num_skipped: int
    """Records that are no rows."""


def split(
    paths: Sequence[Path],
    train: Path,
    held_out: Path,
    share: float,
    seed: int,
    columns: Mapping[str, str],
    watch: Watch,
) -> Parts:
    """Writes both files, whole or not at all; the same seed gives the same files. Raises DataError."""
    if not 0 < share < 1:
        raise DataUnusable(f"--eval-share {share:g}: it is a share of the rows, between 0 and 1")
    if train.resolve() == held_out.resolve():
        raise DataUnusable(f"{train}: both parts would be written to it")
    for path in (train, held_out):
        refuse_inputs(path, list(paths))
    with Spool() as spool:
        loaded, rows = load(paths, spool, columns, watch)
        chosen, clusters = held_out_of(loaded, rows, share, seed, watch)
        num_rows = len(spool)
        with atomic_writer(train) as train_file, atomic_writer(held_out) as eval_file:
            for place, (_, record) in enumerate(watch.follow("write", spool, num_rows)):
                (eval_file if place in chosen else train_file).write(line_of(record))
        return Parts(num_rows - len(chosen), len(chosen), len(clusters.members()), len(loaded.faults))


def held_out_of(
    loaded: Loaded, rows: Iterator[Row], share: float, seed: int, watch: Watch
) -> tuple[set[int], Clusters]:
    """Places in the spool of the rows for evaluation, and the clusters that were kept together. Raises DataUnusable."""
    index, clusters = Index(), Clusters()
    keys: dict[int, int] = {}
    for place, row in enumerate(rows):
        index.count(row)
        clusters.join(keys.setdefault(question_key(row), place), place)
    for row in loaded.rows():
        index.add(row)
    for first, second, _ in index.near_pairs(loaded.row, watch):
        clusters.join(first, second)
    num_rows = len(loaded.spool)
    chosen = choose(num_rows, clusters.find, share, seed)
    if not 0 < len(chosen) < num_rows:
        raise DataUnusable(
            f"{num_rows} rows in clusters of near duplicates cannot be split at {share:g}: clean them first, or give more"
        )
    return chosen, clusters


def choose(num_rows: int, cluster: Callable[[int], int], share: float, seed: int) -> set[int]:
    """Rows for evaluation: whole clusters in random order, as long as they fit into what is wanted; one at least."""
    members: dict[int, list[int]] = {}
    for place in range(num_rows):
        members.setdefault(cluster(place), []).append(place)
    groups = list(members.values())
    Random(seed).shuffle(groups)
    wanted = max(1, round(share * num_rows))
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
        if len(chosen) == wanted:
            break
    return chosen
