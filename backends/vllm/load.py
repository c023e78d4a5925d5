"""How busy a vLLM engine is, read off its metrics page by the names of its version."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from backends.base import Load
from backends.vllm.versions import Metrics

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def load_of(page: str, names: Metrics) -> Load:
    """Sums over the engine's copies of the model (data parallel); of KV use the mean.

    What the page does not have, or has no finite number for, is 0.
    """
    wanted = {getattr(names, field) for field in _FIELDS}
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    newest, running = -1.0, ""
    for name, labels, value in _samples(page):
        if name in wanted:
            sums[name] += value
            counts[name] += 1
        elif name == names.lora_info and value > newest:
            newest, running = value, labels.get(names.running_adapters_label, "")

    def count(name: str) -> int:
        return int(sums[name])

    return Load(
        num_running=count(names.num_running),
        num_waiting=count(names.num_waiting),
        kv_usage=sums[names.kv_usage] / max(1, counts[names.kv_usage]),
        num_preemptions=count(names.num_preemptions),
        num_prompt_tokens=count(names.num_prompt_tokens),
        num_cached_tokens=count(names.num_cached_tokens),
        num_generated_tokens=count(names.num_generated_tokens),
        num_drafts=count(names.num_drafts),
        num_draft_tokens=count(names.num_draft_tokens),
        num_accepted_tokens=count(names.num_accepted_tokens),
        adapters_running=tuple(sorted(filter(None, (item.strip() for item in running.split(","))))),
    )


_FIELDS = (
    "num_running", "num_waiting", "kv_usage", "num_preemptions", "num_prompt_tokens", "num_cached_tokens", "num_generated_tokens",
    "num_drafts", "num_draft_tokens", "num_accepted_tokens",
)  # fmt: skip


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for match in _SAMPLE.finditer(page):
        try:
            value = float(match[3])
        except ValueError:
            continue
        if not math.isfinite(value):
            continue
        yield match[1], dict(_LABEL.findall(match[2] or "")), value
