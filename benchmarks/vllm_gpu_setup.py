"""What the GPU campaign is run on: the gateway, its two models, and random adapters of their shape."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import gpu_memory, random_adapter
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.child import Child
from benchmarks.cold_adapters import Subject, stored
from benchmarks.engine_choice import CHOICES, LLAMACPP, Needs

MAIN, SECOND = "llama", "second"
ENGINE, SECOND_ENGINE = f"{MAIN}-0", f"{SECOND}-0"
START_S = 560.0
RANK = 16
ALIAS = "voice"
CAPTURE_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
"""Fewer than vLLM's own: capturing all of them takes a minute of the GPU's time."""
_GOLDEN = b"finetune.golden"


@dataclass(frozen=True, slots=True)
class Setup:
    """The same for all parts. `tiny`: a small model on the CPU, to try the campaign itself; there llama.cpp will do, too."""

    model: Path
    engine: str
    python: str | None
    workdir: Path
    tiny: bool
    seed: int
    levels: tuple[int, ...]
    num_streams: int
    num_flips: int
    repeats: int
    utilization: float = 0.35
    second_utilization: float = 0.6

    def pools(self) -> dict[str, dict[str, Any]]:
        """The engine that is measured, and one that starts when it is asked for."""
        lora = {"max_loras": 4, "max_cpu_loras": 4, "max_rank": RANK}
        shared: dict[str, Any] = {"max_model_len": 2048, "max_num_seqs": max(*self.levels, self.num_streams)}
        if self.engine == LLAMACPP:
            needs = Needs(max(*self.levels, self.num_streams), 512)
            second = CHOICES[LLAMACPP].options(needs)
            main = CHOICES[LLAMACPP].options(replace(needs, num_adapters=4))
        elif self.tiny:
            shared |= {"enforce_eager": True, "cpu_kv_cache_gib": 1}
            main, second = shared | {"lora": lora}, shared
        else:
            shared |= {"dtype": "bfloat16"}
            main = shared | {
                "gpu_memory_utilization": self.utilization, "lora": lora, "sleep_mode": True,
                "compilation": {"cudagraph_capture_sizes": CAPTURE_SIZES},
            }  # fmt: skip
            second = shared | {"gpu_memory_utilization": self.second_utilization, "enforce_eager": True}
        pool: dict[str, Any] = {
            "engine": self.engine, "model": str(self.model), "replicas": 1, "start_timeout_s": START_S,
            **({"python": self.python} if self.python else {}),
        }  # fmt: skip
        return {
            MAIN: pool | {"options": main},
            SECOND: pool | {"options": second, "resident": "on_demand", "idle_timeout_s": 3600},
        }


@dataclass(slots=True)
class Stage:
    """One gateway, up, and what it was given so far."""

    setup: Setup
    gateway: AdapterGateway
    subjects: dict[int, Subject] = field(default_factory=dict)
    events: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    async def subject(self, number: int) -> Subject:
        """A version without a reference: it is loaded without proof. Raises GatewayError."""
        return await self.publish(number, is_attested=False)

    async def publish(self, number: int, *, is_attested: bool) -> Subject:
        """One of the random adapters, by its number. Raises GatewayError."""
        if number not in self.subjects:
            folder = await asyncio.to_thread(self._adapter, number)
            killing = None if is_attested else asyncio.create_task(_keep_from_references(self.gateway))
            try:
                event = await self.gateway.publish(folder, f"{ALIAS}-{number}")
            finally:
                if killing is not None:
                    killing.cancel()
                    await asyncio.wait({killing})
            self.events[number] = event
            self.subjects[number] = stored(self.gateway, event)
        return self.subjects[number]

    async def used_bytes(self) -> int:
        """Of the GPU by anybody; without one, resident memory of the gateway's own processes."""
        if self.setup.tiny:
            return sum(map(self.gateway.memory_bytes, self.gateway.processes()))
        return await asyncio.to_thread(gpu_memory.used_bytes)

    def _adapter(self, number: int) -> Path:
        folder = self.setup.workdir / f"adapter-{number}"
        if not (folder / "adapter_model.safetensors").exists():
            random_adapter.write(self.setup.model, folder, RANK, self.setup.seed + number)
        return folder


def start(setup: Setup) -> tuple[AdapterGateway, Child]:
    """The caller stops the child."""
    gateway = AdapterGateway(setup.workdir, setup.pools(), START_S)
    return gateway, gateway.start()


async def _keep_from_references(gateway: AdapterGateway) -> None:
    """Kill the child that computes a reference, as often as it comes: what is published then has none."""
    while True:
        for pid in gateway.processes():
            if _GOLDEN in _command(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
