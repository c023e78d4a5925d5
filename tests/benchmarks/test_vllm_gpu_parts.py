"""The parts that only a GPU can run, against a gateway that is played: what they call sleep, and whom they call the holder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import gpu_memory, vllm_gpu_parts, vllm_gpu_report
from benchmarks.gpu_memory import MIB
from benchmarks.vllm_gpu_setup import SECOND_ENGINE
from tests.benchmarks.replies import reply

VERSION = "voice-1@aa"


class Gateway:
    """Two engines; the first one sleeps and wakes at command, the second one finds no memory."""

    def __init__(self, awake_mib: int, asleep_mib: int, detail: str = "") -> None:
        self._mib = (awake_mib, asleep_mib)
        self._detail = detail
        self.is_asleep = False
        self.commands: list[tuple[str, ...]] = []

    async def command(self, *words: str, timeout_s: float) -> str:
        self.commands.append(words)
        self.is_asleep = words[1] == "sleep"
        return ""

    async def engines(self) -> list[dict[str, Any]]:
        first = {
            "id": "llama-0",
            "state": "asleep" if self.is_asleep else "ready",
            "detail": "asleep (level 1)",
            "pid": 1,
        }
        return [first, {"id": SECOND_ENGINE, "state": "failed", "detail": self._detail, "pid": None}]

    async def point(self, alias: str, version: str) -> None:
        assert version == VERSION

    def used_mib(self) -> int:
        return self._mib[self.is_asleep]


class Stage:
    setup = SimpleNamespace(tiny=False)

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def subject(self, number: int) -> Any:
        return SimpleNamespace(version=VERSION)

    async def used_bytes(self) -> int:
        return self.gateway.used_mib() * MIB


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts = ["as ever"] * 3

    async def answered(*_: object) -> Any:
        return reply(texts.pop(0), VERSION)

    monkeypatch.setattr(vllm_gpu_parts, "_answered", answered)
    return texts


@pytest.mark.usefixtures("answers")
async def test_sleep_is_tried_and_reported() -> None:
    gateway = Gateway(50_000, 4_000)
    findings = await vllm_gpu_parts.sleep(cast(Any, Stage(gateway)))
    assert all(check.is_met for check in findings.checks), findings.checks
    assert [words[1:] for words in gateway.commands] == [
        ("sleep", "llama-0", "--level", "1"), ("wake", "llama-0"),
    ]  # fmt: skip
    assert [level["used_asleep_mib"] for level in findings.measured["levels"]] == [4_000]
    rows = vllm_gpu_report._sleep(findings.measured)
    assert rows[-1].startswith("| 1 | ")
    assert "50,000 | 4,000" in rows[-1]


async def test_memory_that_stays_and_another_answer_are_violations(answers: list[str]) -> None:
    answers[1] = "changed"
    findings = await vllm_gpu_parts.sleep(cast(Any, Stage(Gateway(50_000, 40_000))))
    assert [check.is_met for check in findings.checks] == [False, False]


@contextmanager
def held(_: int) -> Iterator[int]:
    yield 4711


@pytest.mark.parametrize("is_named", [True, False])
async def test_who_holds_the_memory_must_be_named(monkeypatch: pytest.MonkeyPatch, is_named: bool) -> None:
    async def asked(*_: object) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"status": 503, "took_s": 1.0, "message": "no memory"}

    monkeypatch.setattr(vllm_gpu_parts, "_asked", asked)
    monkeypatch.setattr(gpu_memory, "held", held)
    monkeypatch.setattr(gpu_memory, "holders", lambda: {4711: 60_000 * MIB})
    detail = "most of it is held by python3 (pid 4711) 58.6 GiB" if is_named else "no memory"
    findings = await vllm_gpu_parts.out_of_memory(cast(Any, Stage(Gateway(50_000, 0, detail))))
    assert [check.is_met for check in findings.checks] == [is_named, True]
    assert findings.measured["holders_mib"] == {"4711": 60_000}
    assert "Process 4711 held the memory." in vllm_gpu_report._out_of_memory(findings.measured)
