"""How large a model is at a level: counted in a file's head, or foretold from what llama.cpp's quantiser says in a dry run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.llamacpp.header import TYPE_SIZES, Header
from backends.llamacpp.quantize.request import TYPE_NAMES

_ALIGNMENT = 32
_TYPE_NUMBERS = {name.lower(): kind for kind, name in TYPE_NAMES.items()}
# [   1/ 291] token_embd.weight - [ 4096, 128256, 1, 1], type = f16, size = 1002.00 MiB -> 410.98 MiB (q6_K)
_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+) +- \[[^\]]*\], type = +(\w+), size = .*?(?:-> .*? MiB \((\w+)\))?$")


@dataclass(frozen=True, slots=True)
class Size:
    file_bytes: int
    tensor_bytes: int
    num_values: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.tensor_bytes / self.num_values


def size_of(parts: Sequence[Header]) -> Size:
    """Of a file, or of all files of a split one."""
    return Size(
        sum(part.file_bytes for part in parts),
        sum(sum(part.tensor_bytes.values()) for part in parts),
        sum(math.prod(tensor.shape) for part in parts for tensor in part.tensors),
    )


def types_told(lines: Iterable[str]) -> dict[str, int]:
    """The ggml type of every tensor, by what a dry run of llama.cpp's quantiser says."""
    found: dict[str, int] = {}
    for line in lines:
        match = _LINE.search(line.rstrip())
        if match:
            found[match[3]] = _TYPE_NUMBERS[(match[5] or match[4]).lower()]
    return found


def num_fallbacks(lines: Iterable[str]) -> int:
    """How many matrices a dry run keeps in larger types, because their rows are no multiple of the level's blocks."""
    return sum("falling back to" in line for line in lines)


def predicted(parts: Sequence[Header], types: dict[str, int]) -> Size:
    """What a file with these types takes. Its head is taken to be as long as those of `parts`. Raises KeyError for an unlisted tensor."""
    padded = exact = num_values = 0
    for part in parts:
        for tensor in part.tensors:
            in_block, block_bytes = TYPE_SIZES[types[tensor.name]]
            num_bytes = math.prod(tensor.shape) // in_block * block_bytes
            exact += num_bytes
            padded += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
            num_values += math.prod(tensor.shape)
    return Size(sum(part.data_start for part in parts) + padded, exact, num_values)
