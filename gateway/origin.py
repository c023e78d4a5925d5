"""Where in forgegate.yaml a pool is written: for faults that show only once its engine is looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.errors import BackendError, BadSpec, EngineUnavailable, ModelUnusable
from gateway.exits import CommandError

OPTIONS = "options"
_KEYS: Mapping[type[BackendError], str] = {BadSpec: OPTIONS, ModelUnusable: "model", EngineUnavailable: "python"}
"""Which key of a pool an error is about, where its message names no option."""
_WORD = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Origin:
    source: str
    """The file, as the user named it."""
    where: str
    """`models[0].pools[1]`."""
    lines: Mapping[str, int]
    """Of every key, those in groups as `options.lora.max_loras`; of the pool itself under an empty name."""

    def at(self, key: str, within: str = "") -> str:
        """What goes before a fault of this key."""
        return f"{self.source}:{self.lines.get(key, self.lines[''])}: {self.where}{within}: "

    def told(self, error: BackendError) -> list[str]:
        """One line for each fault, as those of the file's own are told."""
        texts = error.problems if isinstance(error, BadSpec) else [str(error)]
        return [self._told(text, error) for text in texts]

    def _told(self, text: str, error: BackendError) -> str:
        option = option_of(text, self.lines, not isinstance(error, BadSpec))
        first = text.partition(":")[0]
        key = option or (first if first in self.lines else _KEYS.get(type(error), ""))
        return self.at(key, f".{OPTIONS}" if option else "") + text


class PoolsRefused(CommandError):
    """Pools cannot be served as they are configured; those that are in no file have no origin."""

    def __init__(self, refused: Sequence[tuple[Origin | None, BackendError]]) -> None:
        lines = [line for origin, error in refused for line in (origin.told(error) if origin else [str(error)])]
        super().__init__("\n".join(lines))
        self.exit_code = refused[0][1].exit_code


def option_of(text: str, lines: Mapping[str, int], is_only_first: bool = False) -> str:
    """The key of the option that a message begins with (`lora.max_rank: ...`) or quotes (`unknown option 'n_ctxx' ...`); else empty.

    Of one in a group that is not written itself: one of that name outside of groups, else the group.
    """
    words = _WORD.findall(text)
    for word in words[:1] if is_only_first else words:
        name = plain(word)
        groups = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
        for candidate in (name, name.rpartition(".")[2], *groups):
            if (key := f"{OPTIONS}.{candidate}") in lines:
                return key
    return ""


def plain(key: str) -> str:
    """`--max-loras` as `max_loras`."""
    return key.removeprefix("--").replace("-", "_")
