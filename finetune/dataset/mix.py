"""Domain data with general data at a ratio, so that what the model could before is not forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from backends.artifacts import atomic_writer
from finetune.dataset.errors import DataUnusable
from finetune.dataset.fix import line_of, refuse_inputs
from finetune.dataset.loading import load_all
from finetune.dataset.progress import Watch
from finetune.dataset.ratio import num_general_of
from finetune.dataset.row import Row, messages
from finetune.dataset.spool import Spool


@dataclass(frozen=True, slots=True)
class Mixture:
    num_domain: int
    num_general: int
    num_general_there: int
    num_skipped: int

    @property
    def ratio(self) -> float:
        return self.num_general / (self.num_domain + self.num_general)


def mix(
    domain: Sequence[Path],
    general: Sequence[Path],
    out: Path,
    ratio: float,
    seed: int,
    columns: Mapping[str, str],
    watch: Watch,
) -> Mixture:
    """Writes all domain rows and as many general ones, drawn and shuffled by the seed, as ChatML with the file that each is from.

    Raises DataError, also where there are too few general rows for the ratio.
    """
    if not 0 < ratio < 1:
        raise DataUnusable(f"--ratio {ratio:g}: it is the share of general rows in the result, between 0 and 1")
    refuse_inputs(out, [*domain, *general])
    with ExitStack() as stack:
        own_spool, other_spool = stack.enter_context(Spool()), stack.enter_context(Spool())
        own, other = load_all(domain, own_spool, columns, watch), load_all(general, other_spool, {}, watch)
        wanted = num_general_of(len(own_spool), ratio)
        if wanted > len(other_spool):
            most = len(other_spool) / (len(own_spool) + len(other_spool))
            raise DataUnusable(
                f"--ratio {ratio:g} of {len(own_spool)} domain rows takes {wanted} general ones, "
                f"there are {len(other_spool)}: at most --ratio {most:.2g}"
            )
        rng = Random(seed)
        order = [(own, place) for place in range(len(own_spool))] + [
            (other, place) for place in sorted(rng.sample(range(len(other_spool)), wanted))
        ]
        rng.shuffle(order)
        file = stack.enter_context(atomic_writer(out))
        for loaded, place in watch.follow("write", order, len(order)):
            file.write(line_of(chat_record(loaded.row(place), "domain" if loaded is own else "general")))
        return Mixture(len(own_spool), wanted, len(other_spool), len(own.faults) + len(other.faults))


def chat_record(row: Row, source: str) -> dict[str, object]:
    """ChatML: one form for whatever the files had."""
    record: dict[str, object] = {"messages": messages(row), "source": source}
    return record | ({"tools": row.record["tools"]} if "tools" in row.record else {})
