"""What a GGUF may be quantised to, and what is refused. Pure; heads only."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from backends.errors import BackendError, ModelUnusable
from backends.llamacpp.header import FLOAT_TYPES, TYPE_SIZES, Header
from backends.llamacpp.quantize.levels import Level

Q8_0 = 8
TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    41: "Q1_0", 42: "Q2_0",
}  # fmt: skip
"""Of ggml types, as llama.cpp spells them."""
_LEVEL_AT_END = re.compile(r"[-._](?:I?Q\d[A-Z0-9_]*|B?F16|F32)(?:-\d{5}-of-\d{5})?$", re.IGNORECASE)


class RequestRefused(BackendError):
    """What was asked for would make a model worse and nothing better; the message says what would be right."""

    exit_code = 2


def main_type(parts: Sequence[Header]) -> int:
    """The ggml type that holds most of the matrices' values. Raises ModelUnusable where there is no matrix."""
    counts: Counter[int] = Counter()
    for tensor in _matrices(parts):
        counts[tensor[1]] += tensor[0]
    if not counts:
        raise ModelUnusable(f"{parts[0].path}: it holds no matrices to quantise")
    return counts.most_common(1)[0][0]


def refuse_quantised(parts: Sequence[Header], is_forced: bool) -> None:
    """Raises RequestRefused where matrices are stored in fewer bits than Q8_0 has, unless `is_forced`."""
    low = sorted({kind for _, kind in _matrices(parts) if kind not in FLOAT_TYPES and kind != Q8_0})
    if low and not is_forced:
        types = ", ".join(TYPE_NAMES.get(kind, f"type {kind}") for kind in low)
        raise RequestRefused(
            f"{parts[0].path}: it is quantised already ({types}); what that lost is not regained, and quantised again it loses more: "
            "give the F16 GGUF or the model folder that it was made from, or --requantize"
        )


def split_by_gain(parts: Sequence[Header], levels: Iterable[Level]) -> tuple[list[Level], list[Level]]:
    """Those of `levels` that may make the file smaller (or change its floats), and those that would only make it larger."""
    kind = main_type(parts)
    if kind in FLOAT_TYPES:
        return list(levels), []
    num_values, num_bytes = TYPE_SIZES.get(kind, (1, 1))
    bits = 8 * num_bytes / num_values
    kept = [level for level in levels if level.bits < bits]
    return kept, [level for level in levels if level.bits >= bits]


def base_name(path: Path) -> str:
    """A GGUF's name without the level that it names at its end: `m-F16.gguf` is `m`."""
    stem = path.name.removesuffix(".gguf")
    return _LEVEL_AT_END.sub("", stem) or stem


def _matrices(parts: Sequence[Header]) -> Iterable[tuple[int, int]]:
    """Number of values and type of each tensor of two dimensions or more."""
    for part in parts:
        for tensor in part.tensors:
            if len([length for length in tensor.shape if length > 1]) > 1:
                yield math.prod(tensor.shape), tensor.type
