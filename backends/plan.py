"""What an engine would take of this machine's memory, and which options were picked for that. Values only."""

from __future__ import annotations

from dataclasses import dataclass

RAM = "RAM"
GIB, MIB = 1 << 30, 1 << 20


@dataclass(frozen=True, slots=True)
class Use:
    """What one engine takes of one memory: RAM, or a GPU's own."""

    device: str
    """`RAM`, or a device as the engine names it (`CUDA0`)."""
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    other_bytes: int
    """The process itself, vocabulary, output buffers."""
    free_bytes: int | None
    """What was free for the whole pool; None where this system does not say."""
    shared_bytes: int = 0
    """Of the weights: mapped from one file, so that further engines of the pool take nothing more for them."""
    adapter_bytes: int = 0
    """Of the adapters that may be loaded."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.adapter_bytes + self.other_bytes

    def of_pool(self, num_engines: int) -> int:
        """What all engines of the pool take together."""
        return num_engines * (self.total_bytes - self.shared_bytes) + self.shared_bytes


@dataclass(frozen=True, slots=True)
class Pick:
    """An option that the user left open."""

    option: str
    value: int
    why: str
    """One sentence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One pool's plan."""

    picks: tuple[Pick, ...]
    uses: tuple[Use, ...]
    """One for each memory, of one engine; empty where it cannot be foreseen."""
    num_engines: int
    notes: tuple[str, ...] = ()
    """What the user should know: an option of theirs that is tight, what was not known."""

    def options(self) -> dict[str, int]:
        return {pick.option: pick.value for pick in self.picks}

    def taken(self) -> dict[str, int]:
        """Bytes of each memory that the pool's engines take together."""
        return {use.device: use.of_pool(self.num_engines) for use in self.uses}

    def summary(self) -> str:
        """One line."""
        picked = ", ".join(f"{pick.option} {pick.value}" for pick in self.picks) or "nothing: all options are given"
        memory = "; ".join(
            f"{size_words(use.of_pool(self.num_engines))} of {size_words(use.free_bytes)} free {use.device}"
            if use.free_bytes is not None
            else f"{size_words(use.of_pool(self.num_engines))} of {use.device}"
            for use in self.uses
        )
        return f"picked {picked}" + (f"; takes {memory}" if memory else "")


def size_words(num_bytes: int) -> str:
    """`4.9 GiB`, `32 MiB`."""
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{-(-num_bytes // MIB):,} MiB"
