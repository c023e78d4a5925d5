from __future__ import annotations

import pytest

from backends.base import Reply
from backends.errors import EngineRefused
from backends.vllm.calls import VllmAdapters, VllmSleep


class Engine:
    def __init__(self, refuses: str = "") -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.refuses = refuses

    async def __call__(self, path: str, body: bytes, timeout_s: float) -> Reply:
        self.calls.append((path, body))
        if self.refuses and path.startswith(self.refuses):
            return Reply(500, b'{"error": {"message": "no"}}')
        return Reply(200, b"")

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.calls]


async def test_level_1_sleeps_and_wakes_in_one_call() -> None:
    engine, sleep = Engine(), VllmSleep(has_adapters=False)
    await sleep.sleep(engine, 1)
    await sleep.wake(engine, 1)
    assert engine.paths == ["/sleep?level=1", "/wake_up"]


async def test_level_2_reads_the_weights_again_before_there_is_a_cache() -> None:
    engine, sleep = Engine(), VllmSleep(has_adapters=False)
    await sleep.sleep(engine, 2)
    await sleep.wake(engine, 2)
    assert engine.paths == [
        "/sleep?level=2", "/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache", "/reset_prefix_cache",
    ]  # fmt: skip
    assert engine.calls[2][1] == b'{"method":"reload_weights"}'


async def test_beside_adapters_there_is_level_1_after_which_they_are_forgotten() -> None:
    engine, sleep = Engine(), VllmSleep(has_adapters=True)
    assert sleep.levels == (1,)
    assert VllmSleep(has_adapters=False).levels == (1, 2)
    await sleep.wake(engine, 1)
    assert engine.paths == ["/wake_up", "/forgegate/forget_adapters"]


async def test_a_refusal_names_the_call() -> None:
    with pytest.raises(EngineRefused, match=r"^/collective_rpc answers 500: no$"):
        await VllmSleep(has_adapters=False).wake(Engine("/collective_rpc"), 2)


def test_an_adapter_is_loaded_as_a_directory() -> None:
    assert VllmAdapters().file_name == ""
