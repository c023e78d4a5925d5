"""What a run would be on: a GPU that is there, one that is named, or the processor and its RAM."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from backends.gpus import MACHINE, Gpus
from backends.ram import free_ram
from finetune.errors import RecipeUnusable
from finetune.plan.cards import CARDS, Card, find
from finetune.plan.units import GIB

GPU, CPU = "gpu", "cpu"
CORE_TFLOPS = 0.03
"""What one core of a current server processor makes of 32-bit matrix products inside a training step."""
CPU_GB_S = 15.0
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:g|gb|gib)", re.IGNORECASE)
_RESERVED = 0.02
"""Of a card's nominal memory: what its driver keeps."""


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    kind: str
    """`gpu` or `cpu`."""
    total_bytes: int
    free_bytes: int
    """What a run may take."""
    tflops: float | None = None
    """At best; None where the card is not known."""
    gb_s: float | None = None
    has_bf16: bool = True
    is_there: bool = False
    """In this machine, rather than named."""

    @property
    def is_gpu(self) -> bool:
        return self.kind == GPU


def processor() -> Device:
    """The machine's cores and its RAM, as far as it is free."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = free_ram()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usable = total if free is None else min(total, free)
    return Device(
        f"CPU, {cores} cores", CPU, total, usable, cores * CORE_TFLOPS, CPU_GB_S, has_bf16=False, is_there=True
    )


def detect(gpus: Gpus = MACHINE) -> Device:
    """The GPU that torch would take, the first of those that CUDA_VISIBLE_DEVICES leaves; without one, the processor."""
    seen = gpus.visible()
    if not seen:
        return processor()
    first = seen[0]
    name = gpus.product(first.name) or first.name
    card = find(name, first.total_bytes)
    found = Device(name, GPU, first.total_bytes, first.free_bytes, is_there=True)
    return replace(found, tflops=card.tflops, gb_s=card.gb_s, has_bf16=card.has_bf16) if card else found


def named(text: str) -> Device:
    """`24GB`, `RTX4090`, `A100 80GB`, `cpu`, ... Raises RecipeUnusable."""
    if text.strip().lower() == CPU:
        return processor()
    size = _SIZE.fullmatch(text.strip())
    if size:
        total = int(float(size[1]) * GIB)
        return Device(f"a GPU of {size[1]} GB", GPU, total, int(total * (1 - _RESERVED)))
    card = find(text)
    if card is None:
        known = ", ".join(card.name for card in CARDS)
        raise RecipeUnusable(f"--gpu {text}: write its memory, as in 24GB, or one of these: {known}")
    return of_card(card)


def of_card(card: Card) -> Device:
    """One of that kind, empty."""
    return Device(
        card.name,
        GPU,
        card.memory_bytes,
        int(card.memory_bytes * (1 - _RESERVED)),
        card.tflops,
        card.gb_s,
        card.has_bf16,
    )
