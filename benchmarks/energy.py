"""What GPUs of this machine take in energy while a load runs, by NVML's counter of the joules since the driver was loaded.

The counter (nvmlDeviceGetTotalEnergyConsumption, in millijoules, of Volta and newer cards) is read some times a second; what falls
between two readings is shared out in proportion to time. It knows neither processes nor requests: all that a card takes is in it.
"""

from __future__ import annotations

import asyncio
import bisect
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics import Summary
from benchmarks.probe import UnusableError

INTERVAL_S = 0.25
NOT_KNOWN = "how much energy it took is not known: NVML stopped answering"

Readings = list[tuple[float, float]]
"""(moment by the client's clock, joules of all cards together), in order."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, numbered as nvidia-smi does."""

    index: int
    name: str

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


class Meter:
    """Reads the counters of some cards; `driver` is NVML, open, and each card has its handle."""

    def __init__(self, driver: Any, handles: Mapping[Gpu, Any]) -> None:
        self._driver = driver
        self._handles = dict(handles)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Whose energy it is."""
        return tuple(self._handles)

    def read(self) -> float | None:
        """Joules of all together; None where NVML does not answer. Takes some milliseconds."""
        try:
            return float(sum(map(self._driver.nvmlDeviceGetTotalEnergyConsumption, self._handles.values()))) / 1e3
        except self._driver.NVMLError:
            return None

    def as_dict(self, pooled: Summary) -> dict[str, Any]:
        """Of a load, for result files; empty where its energy is not known."""
        if pooled.energy_j is None:
            return {}
        parts = [f"{pooled.energy_j:,.0f} J of {', '.join(map(str, self.gpus))}"]
        if pooled.duration_s:
            parts.append(f"{pooled.energy_j / pooled.duration_s:,.0f} W")
        if pooled.energy_per_token_j is not None:
            parts.append(f"{pooled.energy_per_token_j:.3g} J per output token")
        return {
            "joules": pooled.energy_j,
            "joules_per_output_token": pooled.energy_per_token_j,
            "sentence": ", ".join(parts),
        }


@contextmanager
def opened(gpus: Sequence[int] | None, host: str, driver: Any = None) -> Iterator[Meter | None]:
    """A meter of these cards, of all for an empty list, of none for None. Raises UnusableError, also where `host`, which is
    asked, is not this machine: our cards say nothing of it.
    """
    if gpus is None:
        yield None
        return
    if not is_here(host):
        raise UnusableError(
            f"--energy-gpus: {host} is another machine, and this one's GPUs say nothing of it", is_environment=False
        )
    driver = driver or _nvml()
    with _heeding(driver, "NVML cannot be asked"):
        driver.nvmlInit()
    try:
        with _heeding(driver, "NVML cannot be asked"):
            meter = Meter(driver, _handles(driver, gpus))
        yield meter
    finally:
        with suppress(driver.NVMLError):  # all is measured by now, or nothing will be
            driver.nvmlShutdown()


@asynccontextmanager
async def metered(
    meter: Meter | None, clock: Callable[[], float], interval_s: float = INTERVAL_S
) -> AsyncIterator[Readings]:
    """The list that fills from before the body until after it; empty without a meter."""
    readings: Readings = []
    if meter is None:
        yield readings
        return
    await _note(meter, clock, readings)
    task = asyncio.create_task(_sample(meter, clock, readings, interval_s))
    try:
        yield readings
    finally:
        task.cancel()
        await asyncio.wait({task})
        await _note(meter, clock, readings)


def joules(readings: Readings, started_s: float, ended_s: float) -> float | None:
    """What was taken between two moments; None where the readings do not enclose them, or the counter began anew."""
    counts = [count for _, count in readings]
    if not readings or not readings[0][0] <= started_s <= ended_s <= readings[-1][0] or counts != sorted(counts):
        return None
    return _count_at(readings, ended_s) - _count_at(readings, started_s)


def is_here(host: str) -> bool:
    """True where the host is this machine: one of its addresses is ours to listen on. A host without an address is not told of here."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return True
    return any(_is_ours(family, address) for family, _, _, _, address in found)


def _is_ours(family: int, address: Any) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _nvml() -> Any:
    try:
        import pynvml  # of use where there is a GPU, and then only for this
    except ImportError as exc:
        raise UnusableError("--energy-gpus needs NVML: pip install nvidia-ml-py", is_environment=True) from exc
    return pynvml


def _handles(driver: Any, gpus: Sequence[int]) -> dict[Gpu, Any]:
    """Raises UnusableError, and what NVML raises."""
    num = driver.nvmlDeviceGetCount()
    handles: dict[Gpu, Any] = {}
    for index in gpus or range(num):
        if index >= num:
            has = f"has 0 to {num - 1}" if num else "has none"
            raise UnusableError(f"--energy-gpus {index}: this machine {has}", is_environment=False)
        handle = driver.nvmlDeviceGetHandleByIndex(index)
        name = driver.nvmlDeviceGetName(handle)
        gpu = Gpu(index, name.decode(errors="replace") if isinstance(name, bytes) else str(name))
        with _heeding(driver, f"{gpu} does not count its energy"):
            driver.nvmlDeviceGetTotalEnergyConsumption(handle)
        handles[gpu] = handle
    return handles


@contextmanager
def _heeding(driver: Any, words: str) -> Iterator[None]:
    """Raises UnusableError, with these words, for what NVML refuses."""
    try:
        yield
    except driver.NVMLError as exc:
        raise UnusableError(f"--energy-gpus: {words} ({exc})", is_environment=True) from exc


async def _sample(meter: Meter, clock: Callable[[], float], readings: Readings, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await _note(meter, clock, readings)


async def _note(meter: Meter, clock: Callable[[], float], readings: Readings) -> None:
    """In a thread, as the driver may take its time; what is read counts for the middle of it."""
    before_s = clock()
    count = await asyncio.to_thread(meter.read)
    if count is not None:
        readings.append(((before_s + clock()) / 2, count))


def _count_at(readings: Readings, moment_s: float) -> float:
    """`moment_s` is not before the first reading, and not after the last."""
    place = max(1, bisect.bisect_left(readings, moment_s, key=lambda reading: reading[0]))
    if place == len(readings):
        return readings[-1][1]
    (low_s, low), (high_s, high) = readings[place - 1], readings[place]
    return low + (high - low) * (moment_s - low_s) / (high_s - low_s)
