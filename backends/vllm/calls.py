"""What is asked of a running vLLM besides completions: its adapters, through the guard, and its sleep."""

from __future__ import annotations

import math
from urllib.parse import urlencode

import msgspec

from backends.adapter.calls import LoraCalls, reason_of
from backends.base import Call
from backends.errors import EngineRefused
from backends.vllm.inside import guard

UNBOUNDED_S = math.inf
"""Weights of many GB go to RAM, or are read again from the disk: the engine's life bounds the whole of it."""


class VllmAdapters(LoraCalls):
    """A version's directory is what is loaded: what its configuration says, vLLM reads itself."""

    def __init__(self) -> None:
        super().__init__("")


class VllmSleep:
    """`SleepCalls` where `sleep_mode` is on. Level 2 drops the weights, so that waking reads them again into the same memory.

    Beside adapters there is level 1 only: their layers are wrapped, and vLLM 0.26 does not find them by the names that the files have
    (`There is no module or parameter named 'layers.0.mlp.down_proj.weight'`, seen on an H200).
    """

    def __init__(self, has_adapters: bool) -> None:
        self.levels: tuple[int, ...] = (1,) if has_adapters else (1, 2)
        self._has_adapters = has_adapters

    async def sleep(self, call: Call, level: int) -> None:
        await _post(call, f"/sleep?{urlencode({'level': level})}", b"")

    async def wake(self, call: Call, level: int) -> None:
        if level == 2:
            await _post(call, "/wake_up?tags=weights", b"")
            await _post(call, "/collective_rpc", msgspec.json.encode({"method": "reload_weights"}))
            await _post(call, "/wake_up?tags=kv_cache", b"")
            await _post(call, "/reset_prefix_cache", b"")
        else:
            await _post(call, "/wake_up", b"")
        if self._has_adapters:  # they are loaded and proven anew
            await _post(call, guard.FORGET, b"")


async def _post(call: Call, path: str, body: bytes) -> None:
    reply = await call(path, body, UNBOUNDED_S)
    if reply.status != 200:
        raise EngineRefused(f"{path.partition('?')[0]} answers {reply.status}: {reason_of(reply)}")
