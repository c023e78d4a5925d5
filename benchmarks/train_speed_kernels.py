"""What a profile's kernels are for, by their names and by the shapes that they were launched with. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PRODUCTS, HEAD, ADAPTER = "matrix products of the base", "matrix products of the head", "matrix products of adapters"
IDLE = "idle"
OTHER = "other"
_GROUPS: Mapping[str, re.Pattern[str]] = {
    group: re.compile(pattern, re.IGNORECASE)
    for group, pattern in {
        "NF4 dequantisation": r"dequantize|kdequant|gemm_4bit|gemv_4bit",
        "attention": r"flash|fmha|attention|varlen|softmax_warp|sdpa",
        PRODUCTS: r"gemm|cutlass|cublas|nvjet|xmma|wgmma|splitk|\bmm\b|addmm|\bbmm\b|linear|mkldnn",
        "optimizer and clipping": r"optimizer|adam|multi_tensor|foreach",
        "loss": r"softmax|nll|cross_entropy|logsumexp",
        "copies": r"memcpy|memset|copy_|copy_kernel|_to_copy|CatArray|\bcat\b",
        "elementwise, norms and reductions": r"elementwise|reduce|norm|triton|silu|sigmoid|mul|add|pow|rsqrt|index|gather|scatter|embedding"
        r"|fill|sum|mean|cos|sin|neg|div|sub|where|arange|distribution",
    }.items()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launched:
    """A kernel's time, on the profiler's clock in microseconds; `widths`: sizes of the dimensions of what its operation was given."""

    name: str
    start_us: float
    end_us: float
    widths: frozenset[int] = frozenset()

    @property
    def us(self) -> float:
        return self.end_us - self.start_us


def group_of(kernel: Launched, vocabulary: int, rank: int) -> str:
    """Products are told apart by what they are of: the vocabulary's width is the head's, an adapter's rank no other layer's."""
    group = next((group for group, pattern in _GROUPS.items() if pattern.search(kernel.name)), OTHER)
    if group != PRODUCTS:
        return group
    if vocabulary in kernel.widths:
        return HEAD
    return ADAPTER if rank in kernel.widths else PRODUCTS


def summary(kernels: Sequence[Launched], vocabulary: int, rank: int) -> dict[str, Any]:
    """Seconds and shares by group, the device's idle time among them, and the kernels that took longest."""
    by_group: dict[str, float] = defaultdict(float)
    by_name: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kernel in kernels:
        group = group_of(kernel, vocabulary, rank)
        by_group[group] += kernel.us
        by_name[group, kernel.name].append(kernel.us)
    span = max((each.end_us for each in kernels), default=0.0) - min((each.start_us for each in kernels), default=0.0)
    by_group[IDLE] = max(0.0, span - busy_us((each.start_us, each.end_us) for each in kernels))
    whole = sum(by_group.values()) or 1.0
    groups = sorted(by_group.items(), key=lambda entry: -entry[1])
    top = sorted(by_name.items(), key=lambda entry: -sum(entry[1]))[:30]
    return {
        "span_s": round(span / 1e6, 4), "num_kernels": len(kernels),
        "groups": {group: {"s": round(us / 1e6, 4), "share": round(us / whole, 4)} for group, us in groups},
        "top": [{"group": group, "name": name, "s": round(sum(times) / 1e6, 4), "num": len(times)} for (group, name), times in top],
    }  # fmt: skip


def busy_us(spans: Iterable[tuple[float, float]]) -> float:
    """Time in which at least one of them ran."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def text(found: Mapping[str, Any], words: str) -> str:
    """For people."""
    lines = [f"{words}: {found['span_s']:.3f} s, {found['num_kernels']:,} kernels", ""]
    lines += [f"{share['share']:7.1%} {share['s']:9.4f} s  {group}" for group, share in found["groups"].items()]
    lines += ["", "kernels that took longest"]
    lines += [
        f"{each['s']:9.4f} s {each['num']:6d} x  {each['group']:32}  {each['name'][:150]}" for each in found["top"]
    ]
    return "\n".join(lines) + "\n"
