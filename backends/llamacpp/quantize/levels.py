"""The levels that a GGUF can be quantised to, largest first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from backends.errors import BackendError

ALL = "all"
AWQ = "awq"
"""No level of GGUF: a folder for vLLM."""
_LIKENESS = 0.5
"""Of a name that was meant and says no bits: `Q9` is nothing."""
_USUAL = "_K_M"


class LevelUnknown(BackendError):
    """No such level; the message lists what there is."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    file_type: int
    """llama.cpp's number for a file of this level (`enum llama_ftype`)."""
    bits: float
    """Of one weight in most matrices; a file's mean is above it, because some matrices are kept in larger types."""
    words: str


LEVELS = {
    level.name: level
    for level in (
        Level("F16", 1, 16.0, "not quantised"),
        Level("Q8_0", 7, 8.5, "as good as F16"),
        Level("Q6_K", 18, 6.5625, "nearly as good as F16"),
        Level("Q5_K_M", 17, 5.5, "good quality for its size: the usual choice"),
        Level("Q5_K_S", 16, 5.5, "somewhat smaller"),
        Level("Q4_K_M", 15, 4.5, "where memory is short"),
        Level("Q4_K_S", 14, 4.5, "somewhat smaller"),
        Level("IQ4_XS", 30, 4.25, "smaller still, best with an importance matrix"),
        Level("Q3_K_M", 12, 3.4375, "quality drops visibly"),
        Level("Q2_K", 10, 2.625, "only where nothing else fits"),
    )
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `--to` asks for; `levels` without repetition, largest first."""

    levels: tuple[Level, ...]
    awq: bool
    is_all: bool
    """Whether the levels were not named one by one."""


def parse(text: str) -> Wanted:
    """`Q4_K_M,Q8_0`, `all`, `awq` or several of them. Raises LevelUnknown."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise LevelUnknown(f"--to names no level; there are: {listed()}")
    chosen = {_canonical(name) for name in names}
    is_all = ALL in chosen
    levels = tuple(level for name, level in LEVELS.items() if is_all or name in chosen)
    return Wanted(levels, AWQ in chosen, is_all)


def listed() -> str:
    return ", ".join((*LEVELS, ALL, AWQ))


def _canonical(name: str) -> str:
    known = {_folded(each): each for each in (*LEVELS, ALL, AWQ)}
    folded = _folded(name)
    if folded in known:
        return known[folded]
    meant = _meant(folded, known)
    hint = f": did you mean {known[meant]}?" if meant else "."
    raise LevelUnknown(f"no level {name!r}{hint} There are: {listed()}")


def _meant(folded: str, known: Collection[str]) -> str:
    """Of the levels with as many bits as the name says the most alike, else the usual one; empty where nothing is near."""
    same = [each for each in known if _bits(each) == _bits(folded) != ""]
    if not same:
        return next(iter(difflib.get_close_matches(folded, known, n=1, cutoff=_LIKENESS)), "")
    usual_first = sorted(same, key=lambda each: not each.endswith(_USUAL))
    return max(usual_first, key=lambda each: difflib.SequenceMatcher(None, folded, each).ratio())


def _bits(folded: str) -> str:
    """The first number of a name."""
    found = re.search(r"\d+", folded)
    return found[0] if found else ""


def _folded(name: str) -> str:
    """`q4_k_m` and `Q4-K-M` mean the same."""
    return name.upper().replace("-", "_")
