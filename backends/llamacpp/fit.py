"""Which options an engine gets for the memory that is free: a pure decision with a reason for each.

What the user set is kept. What is left open (0; n_gpu_layers: -1) is picked: all layers on the GPUs if they fit beside a KV cache of
comfortable size, else as many as fit; then as large a KV cache as the model can use and memory allows; smaller steps where memory
is short. Where nothing fits, `NoRoom` says what takes how much and which option of the user's stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from backends.errors import NoRoom
from backends.llamacpp.memory import Device, uses
from backends.llamacpp.options import (
    CELLS_PER_SEQUENCE,
    PLAIN_ADAPTERS,
    PLAIN_BATCH,
    PLAIN_CELLS,
    PLAIN_SEQUENCES,
    SEPARATE_LENGTH,
    Options,
)
from backends.llamacpp.purpose import POOLED
from backends.llamacpp.shape import Shape
from backends.plan import GIB, MIB, RAM, Pick, Plan, Use, size_words

FULL_REQUESTS = 4
"""The KV cache is as large as this many requests of the length that the model was trained for."""
LEAST_CELLS = 2048
BATCHES = (512, 256, 128)
"""Sizes of a step that are tried; smaller ones need smaller buffers."""
_STEP = 256
"""llama.cpp's KV cache comes in blocks of this many cells."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to plan with. None: this system does not say how much RAM is free."""

    ram_bytes: int | None
    devices: tuple[Device, ...] = ()
    num_threads: int = 1


class _Reserve(Enum):
    """What is left free: of RAM a half while the KV cache grows beyond what is comfortable, else a tenth."""

    HALF = 1
    USUAL = 2
    NONE = 3


@dataclass(frozen=True, slots=True)
class _Try:
    options: Options
    num_on_gpu: int
    uses: tuple[Use, ...]


def fit(
    shape: Shape | None, options: Options, room: Room, num_engines: int = 1, is_paging_accepted: bool = False
) -> Plan:
    """The plan for `num_engines` equal engines. Raises NoRoom.

    `is_paging_accepted`: weights in RAM may exceed what is free, and are read from disk again and again.
    """
    if shape is None:
        note = "its head does not say what it takes: the usual values, whatever is free"
        return Plan(tuple(_picks(None, options, _plain(options), room, 0)), (), num_engines, (note,))
    search = _Search(shape, options, room, num_engines, is_paging_accepted)
    found = search.best()
    if found is None:
        raise NoRoom(_why_not(search))
    if not options.max_adapters and options.pooling not in POOLED:
        found = _with_adapters(search, found)
    notes = tuple(_notes(search, found))
    return Plan(tuple(_picks(shape, options, found, room, search.wish())), found.uses, num_engines, notes)


class _Search:
    """Tries options, the best first."""

    def __init__(self, shape: Shape, options: Options, room: Room, num_engines: int, is_paging_accepted: bool) -> None:
        self.shape = shape
        self.options = options
        self.room = room
        self.num_engines = num_engines
        self.is_paging_accepted = is_paging_accepted
        self.num_layers = len(shape.layers) + 1

    def request_cells(self) -> int:
        """The longest request."""
        return self.options.n_ctx_seq or self.shape.trained_length or LEAST_CELLS

    def wish(self) -> int:
        """KV cells where memory is no question."""
        num_requests, longest = self.options.n_seq_max or PLAIN_SEQUENCES, self.request_cells()
        if self.options.has_separate_caches:
            each = self.options.n_ctx_seq or min(longest, SEPARATE_LENGTH)
            return num_requests * _blocks(each)
        usual = min(PLAIN_CELLS, num_requests * longest)
        return _blocks(max(usual, min(num_requests, FULL_REQUESTS) * longest, self.options.prefix_cache_cells))

    def least(self) -> int:
        """KV cells below which it is not worth while."""
        if self.options.has_separate_caches:
            num_requests = self.options.n_seq_max or 1
            return num_requests * _blocks(self.options.n_ctx_seq or min(CELLS_PER_SEQUENCE, self.request_cells()))
        asked = max(self.options.n_ctx_seq, self.options.prefix_cache_cells)
        return _blocks(max(asked, min(LEAST_CELLS, self.request_cells())))

    def best(self) -> _Try | None:
        """None where nothing fits."""
        if not any(self.fits(self.smallest(num_on_gpu), _Reserve.NONE) for num_on_gpu in self._layers()):
            return None
        for cells, num_on_gpu, batches, reserve in self._preferences():
            for batch in batches:
                found = self._largest(cells, num_on_gpu, batch, reserve)
                if found is not None:
                    return found
        return None

    def at(self, cells: int, num_on_gpu: int, batch: int) -> _Try:
        """What these would take."""
        options = replace(self.options.settled(cells, batch), n_gpu_layers=num_on_gpu)
        taken = uses(self.shape, options, self.room.devices, num_on_gpu, self.room.ram_bytes)
        return _Try(options, num_on_gpu, taken)

    def holding(self, num_adapters: int) -> _Search:
        """The same with so many places for adapters."""
        options = replace(self.options, max_adapters=num_adapters)
        return _Search(self.shape, options, self.room, self.num_engines, self.is_paging_accepted)

    def smallest(self, num_on_gpu: int) -> _Try:
        """The least that the user's options allow."""
        return self.at(self.options.n_ctx or min(self.least(), self.wish()), num_on_gpu, self._batches()[-1])

    def fits(self, found: _Try, reserve: _Reserve) -> bool:
        return all(free is None or taken <= free - kept for taken, free, kept in self.sums(found.uses, reserve))

    def sums(self, taken: Sequence[Use], reserve: _Reserve) -> Iterator[tuple[int, int | None, int]]:
        """For RAM and each device: bytes of all engines, what is free, what is to be left of it."""
        in_ram = {device.name for device in self.room.devices if device.is_in_ram}
        for use in taken:
            total = use.of_pool(self.num_engines)
            if use.device == RAM:
                if self.is_paging_accepted:
                    total = self.num_engines * (use.total_bytes - use.weights_bytes)
                total += sum(other.of_pool(self.num_engines) for other in taken if other.device in in_ram)
                yield total, use.free_bytes, ram_reserve(use.free_bytes or 0, reserve)
            else:
                device = next(device for device in self.room.devices if device.name == use.device)
                yield total, use.free_bytes, device_reserve(device, reserve)

    def _preferences(self) -> Iterator[tuple[range, int, Sequence[int], _Reserve]]:
        """Numbers of KV cells to take the largest of, layers on the GPUs, sizes of a step, what is left free: the best first."""
        usual, all_batches = self._batches()[:1], self._batches()
        comfortable = self.options.n_ctx or min(self.wish(), max(PLAIN_CELLS, self.least()))
        most, least = self.options.n_ctx or self.wish(), self.options.n_ctx or min(self.least(), comfortable)
        many, enough = range(comfortable, most + 1, _STEP), range(comfortable, comfortable + 1)
        few = range(least, comfortable + 1, _STEP)
        layers = self._layers()
        yield many, layers[0], usual, _Reserve.HALF
        yield enough, layers[0], all_batches, _Reserve.USUAL
        yield from ((enough, num_on_gpu, usual, _Reserve.USUAL) for num_on_gpu in layers[1:])
        yield from ((few, num_on_gpu, all_batches, _Reserve.USUAL) for num_on_gpu in layers)
        yield from ((few, num_on_gpu, all_batches, _Reserve.NONE) for num_on_gpu in layers)

    def _layers(self) -> Sequence[int]:
        """Numbers of layers on the GPUs to try, the best first."""
        if not self.room.devices:
            return (0,)
        if self.options.n_gpu_layers >= 0:
            return (min(self.options.n_gpu_layers, self.num_layers),)
        return range(self.num_layers, -1, -1)

    def _batches(self) -> tuple[int, ...]:
        return (PLAIN_BATCH,) if self.options.n_batch or self.options.n_ubatch else BATCHES

    def _largest(self, cells: range, num_on_gpu: int, batch: int, reserve: _Reserve) -> _Try | None:
        """With the largest number of cells that fits; None where not even the smallest does."""
        return _last_that(
            lambda index: self.at(cells[index], num_on_gpu, batch), len(cells), lambda tried: self.fits(tried, reserve)
        )


def _with_adapters(search: _Search, found: _Try) -> _Try:
    """With places for adapters. A KV cache grows less for them, but nothing else gives way: where there is no room, no memory is
    kept for the one place that there is at least.
    """
    least = min(found.options.n_ctx, max(PLAIN_CELLS, search.least()))
    for number in range(PLAIN_ADAPTERS, 0, -1):
        other = search.holding(number).best()
        if other is not None and other.options.n_ctx >= least and _is_as_good(other, found):
            return other
    return replace(found, options=replace(found.options, max_adapters=1))


def _is_as_good(other: _Try, found: _Try) -> bool:
    return (other.num_on_gpu, other.options.n_batch) == (found.num_on_gpu, found.options.n_batch)


def ram_reserve(free_bytes: int, reserve: _Reserve) -> int:
    """What the rest of the machine keeps."""
    return {
        _Reserve.HALF: free_bytes // 2,
        _Reserve.USUAL: max(256 * MIB, free_bytes // 10),
        _Reserve.NONE: 0,
    }[reserve]


def device_reserve(device: Device, reserve: _Reserve) -> int:
    """For what a GPU's library takes while it computes; llama.cpp's own `--fit` leaves 1 GiB as well."""
    return 0 if reserve is _Reserve.NONE else min(GIB, device.total_bytes // 10)


def _plain(options: Options) -> _Try:
    filled = options.settled()
    return _Try(filled, options.n_gpu_layers, ())


def _blocks(cells: int) -> int:
    return -(-cells // _STEP) * _STEP


def _last_that(make: Callable[[int], _Try], count: int, accepts: Callable[[_Try], bool]) -> _Try | None:
    """The last of 0 .. count - 1 that is accepted, if one is; acceptance ends somewhere and does not come back."""
    found, low, high = None, 0, count
    while low < high:
        # The largest first: where memory is no question that one settles it.
        middle = high - 1 if found is None and low == 0 and high == count else (low + high) // 2
        tried = make(middle)
        if accepts(tried):
            found, low = tried, middle + 1
        else:
            high = middle
    return found


# Words ------------------------------------------------------------------------------------------------------------------


def _picks(shape: Shape | None, given: Options, found: _Try, room: Room, wish: int) -> Iterator[Pick]:
    picked = found.options
    if not given.n_ctx:
        yield Pick("n_ctx", picked.n_ctx, _cells_reason(shape, given, picked, wish))
    if not given.n_seq_max:
        why = "requests at the same time, as usual"
        if picked.n_seq_max < PLAIN_SEQUENCES:
            why = f"requests at the same time: {CELLS_PER_SEQUENCE} KV cells for each at least"
        yield Pick("n_seq_max", picked.n_seq_max, why)
    for name in ("n_batch", "n_ubatch"):
        if not getattr(given, name):
            size = getattr(picked, name)
            why = (
                "tokens of a step, as usual" if size >= PLAIN_BATCH else "tokens of a step: smaller buffers, for memory"
            )
            yield Pick(name, size, why)
    if shape is not None and not given.max_adapters and picked.max_adapters:
        yield Pick("max_adapters", picked.max_adapters, f"LoRA adapters at the same time, {_adapters_reason(found)}")
    if not given.n_threads:
        yield Pick("n_threads", room.num_threads, "one for each physical core that this process may use")
    if given.n_gpu_layers < 0 and room.devices and shape is not None:
        yield _layers_pick(len(shape.layers) + 1, found)


def _adapters_reason(found: _Try) -> str:
    if not any(use.adapter_bytes for use in found.uses):
        return "though no memory is left for one"
    return "as usual" if found.options.max_adapters == PLAIN_ADAPTERS else "all that fit beside the KV cache"


def _layers_pick(num_layers: int, found: _Try) -> Pick:
    names = ", ".join(use.device for use in found.uses if use.device != RAM)
    if found.num_on_gpu >= num_layers:
        return Pick("n_gpu_layers", num_layers, f"all layers fit on {names} beside KV cache and buffers")
    if not found.num_on_gpu:
        return Pick("n_gpu_layers", 0, "not one layer fits on a GPU beside its KV cache and buffers")
    why = f"of {num_layers} layers these fit on {names} beside KV cache and buffers; the others stay in RAM"
    return Pick("n_gpu_layers", found.num_on_gpu, why)


def _cells_reason(shape: Shape | None, given: Options, picked: Options, wish: int) -> str:
    if shape is None:
        return "KV cells, as usual"
    if picked.has_separate_caches:
        each = picked.n_ctx // picked.n_seq_max
        return f"KV cells: {each:,} for each of {picked.n_seq_max} requests, its longest length"
    longest = given.n_ctx_seq or shape.trained_length or LEAST_CELLS
    if picked.n_ctx < wish:
        return f"KV cells: all that fit; {wish:,} would be wished for"
    return f"KV cells: {picked.n_ctx / longest:.3g} requests of {longest:,} tokens, the longest possible"


def _notes(search: _Search, found: _Try) -> Iterator[str]:
    if search.room.ram_bytes is None:
        yield "how much RAM is free is not known here: nothing was held against it"
    if not search.fits(found, _Reserve.USUAL):
        yield "tight: less than the usual reserve is left free"
    if search.is_paging_accepted:
        use = found.uses[0]
        if use.free_bytes is not None and use.of_pool(search.num_engines) > use.free_bytes:
            yield "the weights exceed what RAM is free: they are read from disk again and again, which is very slow"


def _why_not(search: _Search) -> str:
    short = search.smallest(max(0, search.options.n_gpu_layers))
    told = "; ".join(
        f"{_takes(use, search.num_engines)}, {size_words(use.free_bytes)} of {use.device} are free"
        for use, (taken, free, _) in zip(short.uses, search.sums(short.uses, _Reserve.NONE), strict=True)
        if free is not None and taken > free and use.free_bytes is not None
    )
    engines = f"{search.num_engines} engines" if search.num_engines > 1 else "the engine"
    return f"{engines} would take {told}. {_way_out(search)}"


def _takes(use: Use, num_engines: int) -> str:
    parts = (("weights", use.weights_bytes), ("KV cache", use.kv_bytes), ("buffers", use.compute_bytes),
             ("adapters", use.adapter_bytes))  # fmt: skip
    each = ", ".join(f"{name} {size_words(size)}" for name, size in (*parts, ("process", use.other_bytes)) if size)
    return f"{size_words(use.of_pool(num_engines))} ({each}{' each' if num_engines > 1 else ''})"


_OPEN = {"n_gpu_layers": -1, "n_ctx": 0, "n_ctx_seq": 0, "prefix_cache_cells": 0, "n_batch": 0, "n_seq_max": 0,
         "max_adapters": 0}  # fmt: skip


def _way_out(search: _Search) -> str:
    """Which option of the user's stands in the way; else what else there is to do."""
    for name, open_value in _OPEN.items():
        value = getattr(search.options, name)
        if value == open_value:
            continue
        opened: dict[str, Any] = {name: open_value}
        without = replace(search.options, **opened)
        other = _Search(search.shape, without, search.room, search.num_engines, search.is_paging_accepted)
        found = other.best()
        if found is not None:
            fits = found.num_on_gpu if name == "n_gpu_layers" else getattr(found.options, name)
            return f"{name}: {value} is too much, " + (f"{fits} fits" if fits else "without it, it fits")
    if search.num_engines > 1:
        one = _Search(search.shape, search.options, search.room, 1, search.is_paging_accepted)
        if one.best() is not None:
            return "fewer replicas fit"
    paging = "" if search.is_paging_accepted else (
        ", or set use_mmap: true among the pool's options to start it all the same: what does not fit is then read from disk "
        "again and again, which is very slow"
    )  # fmt: skip
    return f"Use a smaller quantisation or model, or free some memory{paging}"
