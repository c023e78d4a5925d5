"""What a request waits for an adapter that no engine holds, against the engine's own load call and a warm request.

Each round frees a version, asks for it by way of the gateway, and again when it is there; then it loads the same files into the same
engine by the engine's own call under a name of its own, asks directly, twice, and unloads it. Every prompt is new to the engine.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks import adapter_answers
from benchmarks.adapter_answers import QUESTIONS, Reply
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.chaos_gateway import GatewayError
from benchmarks.chaos_verdict import Ending
from benchmarks.client import Client

MAX_RATIO = 1.5
MAX_LOAD_RATIO = 1.2
MAX_TOKENS = 16
TIMEOUT_S = 120.0
LOAD_PATH, UNLOAD_PATH = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@dataclass(slots=True)
class Times:
    """Seconds, one of each a round."""

    cold: list[float] = field(default_factory=list)
    """From sending to the first text, by way of the gateway, the version not there."""
    wait: list[float] = field(default_factory=list)
    """Of which the gateway says that the request waited for its adapter: loading and, where there is a reference, proving it."""
    warm: list[float] = field(default_factory=list)
    """The next request."""
    load_call: list[float] = field(default_factory=list)
    """The engine's own."""
    direct_first: list[float] = field(default_factory=list)
    direct_warm: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Cold over the engine's own call and a warm request after it."""
        own = zip(self.cold, self.load_call, self.direct_warm, strict=True)
        return [cold / (load + warm) for cold, load, warm in own]

    @property
    def load_ratios(self) -> list[float]:
        """What a request waited over the engine's own call."""
        return [wait / load for wait, load in zip(self.wait, self.load_call, strict=True)]


@dataclass(frozen=True, slots=True)
class Subject:
    """A version, and what an engine is given to load it."""

    version: str
    path: Path


def stored(gateway: AdapterGateway, event: Mapping[str, Any]) -> Subject:
    """The version of a publication, in the gateway's own store: the GGUF where the engines load that, else the folder."""
    folder = gateway.home / "adapters" / str(event["digest"]).removeprefix("sha256:")
    converted = folder / "adapter.gguf"
    return Subject(str(event["version"]), converted if converted.exists() else folder)


async def measure(gateway: AdapterGateway, engine_id: str, subject: Subject, num_rounds: int) -> Times:
    """One version, so many times, the first of them not counted. Raises GatewayError."""
    public = Client(gateway.target, timeout_s=TIMEOUT_S)
    direct = Client(await gateway.direct(engine_id), timeout_s=TIMEOUT_S)
    times = Times()
    try:
        for number in range(num_rounds + 1):
            if number == 1:
                times = Times()
            await _round(gateway, public, direct, subject, number, times)
    finally:
        public.close()
        direct.close()
    return times


async def _round(
    gateway: AdapterGateway, public: Client, direct: Client, subject: Subject, number: int, times: Times
) -> None:
    await gateway.free(subject.version)
    cold = await _ask(public, subject.version, f"{number} cold. ", number)
    if cold.wait_ms is None:
        raise GatewayError(f"{subject.version} was there although it had been freed")
    times.cold.append(_ttft_s(cold))
    times.wait.append(cold.wait_ms / 1e3)
    times.warm.append(_ttft_s(await _ask(public, subject.version, f"{number} warm. ", number)))
    await gateway.free(subject.version)
    name = f"direct-{number}"
    start_s = direct.clock()
    await _call(direct, LOAD_PATH, {"lora_name": name, "lora_path": str(subject.path)})
    times.load_call.append(direct.clock() - start_s)
    times.direct_first.append(_ttft_s(await _ask(direct, name, f"{number} first. ", number)))
    times.direct_warm.append(_ttft_s(await _ask(direct, name, f"{number} second. ", number)))
    await _call(direct, UNLOAD_PATH, {"lora_name": name})


async def _ask(client: Client, model: str, prefix: str, number: int) -> Reply:
    reply = await adapter_answers.ask(client, model, number % len(QUESTIONS), MAX_TOKENS, prefix)
    if reply.ending is not Ending.ANSWERED or reply.ttft_s is None:
        raise GatewayError(f"{model}: {reply.ending.value}: {reply.detail or 'an answer without text'}")
    return reply


def _ttft_s(reply: Reply) -> float:
    assert reply.ttft_s is not None
    return reply.ttft_s


async def _call(client: Client, path: str, fields: Mapping[str, str]) -> None:
    exchange = await client.post(path, orjson.dumps(fields))
    if exchange.failure is not None or exchange.status != 200:
        reason = exchange.failure or f"{exchange.status} {exchange.body[:300].decode('utf-8', 'replace')}"
        raise GatewayError(f"the engine's {path}: {reason}")


def as_dict(times: Times) -> dict[str, Any]:
    """For the result file: every sample, and what they come to."""
    samples = {name: [round(value, 4) for value in getattr(times, name)] for name in Times.__dataclass_fields__}
    return {
        "rounds": len(times.cold),
        "seconds": {name: _spread(values) for name, values in samples.items()},
        "samples_s": samples,
        "ratio": _spread(times.ratios),
        "load_ratio": _spread(times.load_ratios),
    }


def table(name: str, found: Mapping[str, Any]) -> list[str]:
    """Markdown, of what `as_dict` made."""
    words = {
        "cold": "ttft of a request whose adapter is not there, by way of the gateway",
        "wait": "of which it waited for its adapter",
        "warm": "ttft of the next one",
        "load_call": "the engine's own load call",
        "direct_first": "ttft of the first request after it, directly",
        "direct_warm": "ttft of the next one, directly",
    }
    rows = [_row(words[key], found["seconds"][key], 1e3, ".1f") for key in words]
    return [
        f"| {name}, {found['rounds']} rounds, ms | median | lowest | highest |",
        "|---|--:|--:|--:|",
        *rows,
        _row("cold / (load call + warm, directly)", found["ratio"], 1, ".2f"),
        _row("waited / load call", found["load_ratio"], 1, ".2f"),
    ]


def _row(name: str, of: Mapping[str, float], factor: float, form: str) -> str:
    cells = (format(of[key] * factor, form) for key in ("median", "min", "max"))
    return f"| {name} | {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
