"""GGUF files of a repository by their names: which belong together, which quantisation they are. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from backends.hub.listing import RemoteFile

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|(?<=[-._]))(?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4)(?=$|[-.])",
    re.IGNORECASE,
)
_COMPANIONS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""Image encoders, statistics, draft heads: parts of a model's name that say it is none by itself."""


class Named(Protocol):
    """What a label can mean."""

    @property
    def label(self) -> str: ...
    @property
    def tag(self) -> str: ...
    @property
    def stem(self) -> str: ...


T = TypeVar("T", bound=Named)


@dataclass(frozen=True, slots=True)
class Gguf:
    """One model in GGUF form: one file, or all parts of it in their order."""

    stem: str
    """The file's name without `-00001-of-00003` and `.gguf`."""
    tag: str
    """Its quantisation in capitals, as its maker wrote it into the name; empty where it is not there."""
    label: str
    """What names it among the models of its repository: the tag, else the stem, else the path."""
    files: tuple[RemoteFile, ...]
    num_parts: int

    @property
    def is_companion(self) -> bool:
        return any(mark in self.stem.casefold() for mark in _COMPANIONS)

    @property
    def is_whole(self) -> bool:
        return len(self.files) == self.num_parts

    @property
    def num_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def find_ggufs(files: Iterable[RemoteFile]) -> list[Gguf]:
    """Every GGUF model, in the order of paths; parts of a split one as one."""
    groups: dict[tuple[str, int], dict[int, RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if file.name.lower().endswith(".gguf"):
            path, number, count = _split(_bare(file.path))
            groups.setdefault((path, count), {})[number] = file
    return _labelled([(path, count, tuple(group[n] for n in sorted(group))) for (path, count), group in groups.items()])


def quant_of(path: str) -> str:
    """The quantisation that a GGUF's path names, in capitals; empty where it names none."""
    folder, _, name = _split(_bare(path))[0].rpartition("/")
    for text in (name, folder.rpartition("/")[2]):
        found = _QUANT.findall(text)
        if found:
            return re.sub(r"^FP(?=16|32)", "F", str(found[-1]).upper())
    return ""


def stem_of(path: str) -> str:
    """A GGUF's name without the number of its part and `.gguf`."""
    return _split(_bare(path.rpartition("/")[2]))[0]


def fitting(label: str, models: Sequence[T]) -> list[T]:
    """Those that `label` means: by its own label, else by quantisation, else by name, else by a part of the name between dashes or dots."""
    wanted = label.casefold().removesuffix(".gguf")
    part = re.compile(rf"(?:^|(?<=[-._])){re.escape(wanted)}(?=$|[-.])")
    rules = (
        lambda model: model.label.casefold() == wanted,
        lambda model: model.tag.casefold() == wanted,
        lambda model: model.stem.casefold() == wanted,
        lambda model: part.search(model.stem.casefold()) is not None,
    )
    for rule in rules:
        found = [model for model in models if rule(model)]
        if found:
            return found
    return []


def _bare(path: str) -> str:
    return path[: -len(".gguf")] if path.lower().endswith(".gguf") else path


def _split(path: str) -> tuple[str, int, int]:
    """Path without the part's number, the number, how many parts there are."""
    match = _SPLIT.fullmatch(path)
    return (match["stem"], int(match["number"]), int(match["count"])) if match else (path, 1, 1)


def _labelled(groups: list[tuple[str, int, tuple[RemoteFile, ...]]]) -> list[Gguf]:
    bare = [Gguf(stem_of(path), quant_of(path), path, files, count) for path, count, files in groups]
    tags = Counter(model.tag for model in bare if not model.is_companion)
    stems = Counter(model.stem for model in bare)
    return [replace(model, label=_label(model, tags, stems)) for model in bare]


def _label(model: Gguf, tags: Counter[str], stems: Counter[str]) -> str:
    if model.tag and tags[model.tag] == 1 and not model.is_companion:
        return model.tag
    label = model.stem if stems[model.stem] == 1 else model.label
    return re.sub(r"[^A-Za-z0-9._-]", "-", label).lstrip("._-") or "gguf"
