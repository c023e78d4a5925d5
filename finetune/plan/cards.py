"""What is known of GPUs: memory, and the rates that a training step is limited by, from their makers' data sheets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from finetune.plan.units import MIB


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    memory_mib: int
    """As nvidia-smi shows it."""
    tflops: float
    """Of 16-bit matrix products accumulated in 32 bits, without sparsity."""
    gb_s: float
    """Bandwidth of its memory, in 10^9 bytes a second."""
    has_bf16: bool = True

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB


CARDS = (
    Card("T4", 15360, 65, 320, has_bf16=False),
    Card("V100 16GB", 16160, 125, 900, has_bf16=False),
    Card("V100 32GB", 32510, 125, 900, has_bf16=False),
    Card("A10", 23028, 125, 600),
    Card("A10G", 23028, 70, 600),
    Card("L4", 23034, 121, 300),
    Card("RTX 3090", 24576, 71, 936),
    Card("RTX 4090", 24564, 165, 1008),
    Card("RTX 5090", 32607, 209, 1792),
    Card("RTX A6000", 49140, 155, 768),
    Card("A40", 46068, 150, 696),
    Card("L40", 46068, 181, 864),
    Card("L40S", 46068, 362, 864),
    Card("RTX 6000 Ada", 49140, 364, 960),
    Card("A100 40GB", 40960, 312, 1555),
    Card("A100 80GB", 81920, 312, 2039),
    Card("RTX PRO 6000 Blackwell", 97887, 503, 1792),
    Card("H100 PCIe", 81559, 756, 2000),
    Card("H100", 81559, 989, 3350),
    Card("H200", 143771, 989, 4800),
    Card("B200", 183359, 2250, 8000),
)
"""By memory and rate; the smallest one that is large enough is what a plan recommends."""
_FORMS = frozenset({"pcie", "pci", "sxm", "sxm2", "sxm3", "sxm4", "sxm5", "hbm2", "hbm2e", "hbm3", "hbm3e", "gpu"})
_NOISE = _FORMS | {"nvidia", "geforce", "tesla", "generation", "edition", "workstation", "server"}
"""Words beside a card's own. Any other makes it another card: a `4090 Laptop`, a `3090 Ti`, a slice of an A100."""
_SIZE = re.compile(r"\b(\d+)\s*g(?:i?b)?\b", re.IGNORECASE)


def find(name: str, memory_bytes: int | None = None) -> Card | None:
    """The card that is called so, by a user (`rtx4090`) or by NVIDIA's driver (`NVIDIA A100-SXM4-80GB`); the nearest memory decides.

    None where it is not known.
    """
    matches = _called(_key(name, _NOISE - _FORMS)) or _called(_key(name, _NOISE))
    if not matches:
        return None
    size = memory_bytes or _size_in(name)
    return min(matches, key=lambda card: abs(card.memory_bytes - size)) if size else matches[-1]


def _called(key: str) -> list[Card]:
    return [card for card in CARDS if _key(card.name, frozenset()) == key]


def _key(name: str, noise: frozenset[str]) -> str:
    """Its words without the size of its memory, joined: users write `RTX4090`."""
    words = re.findall(r"[a-z0-9]+", _SIZE.sub(" ", name.lower()))
    return "".join(word for word in words if word not in noise)


def _size_in(name: str) -> int:
    found = _SIZE.search(name)
    return int(found[1]) * 1024 * MIB if found else 0
