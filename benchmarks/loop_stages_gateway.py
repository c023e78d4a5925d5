"""One model on one vLLM and one llama.cpp, and clients that stream from it."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from benchmarks import adapter_answers
from benchmarks.adapter_answers import QUESTIONS, Reply
from benchmarks.chaos_gateway import Gateway
from benchmarks.chaos_verdict import CHAT, Ending
from benchmarks.client import Client, Target
from benchmarks.engine_choice import LLAMACPP, VLLM
from benchmarks.loop_stages_commands import ALIAS, TICKET
from benchmarks.workload import Request

MODEL = "demo"
ENGINES = {f"{MODEL}-0": VLLM, f"{MODEL}-1": LLAMACPP}
"""By the order of their pools."""
START_S = 400.0
NUM_WORKERS = 2
NUM_SLOTS = 4
"""Adapters that an engine holds."""
GPU_SHARE = 0.2
GRAPHS = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32]}
"""Of so small a model a step is all launches of kernels, which graphs spare; compiling it would cost more than the loop gains."""
TIMEOUT_S = 60.0
PAUSE_S = 0.25
STREAM_TOKENS, TICKET_TOKENS = 64, 64
NUM_AT_ONCE, NUM_ROUNDS = 8, 6
"""Requests of a round, so many that engines share them, and rounds until each has had one."""


def pools(
    *, is_gpu: bool, vllm_python: str | None = None, vllm_options: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """`vllm_options` come on top of ours."""
    lora = {"max_loras": NUM_SLOTS}
    vllm: dict[str, Any] = {"lora": lora, "tool_call_parser": "hermes"}
    llamacpp: dict[str, Any] = {"max_adapters": NUM_SLOTS}
    if is_gpu:
        vllm |= {
            "gpu_memory_utilization": GPU_SHARE,
            "max_num_seqs": 32,
            "compilation": GRAPHS,
        }
        llamacpp |= {"n_ctx": 32_768, "n_seq_max": 32}
    else:
        vllm |= {"enforce_eager": True, "cpu_kv_cache_gib": 1, "max_num_seqs": 16}
        llamacpp |= {"n_ctx": 8192, "n_seq_max": 16, "n_threads": 1}
    python = {"python": vllm_python} if vllm_python else {}
    return [
        {
            "engine": VLLM,
            "model": MODEL,
            "options": vllm | dict(vllm_options or {}),
            "start_timeout_s": START_S,
            **python,
        },
        {"engine": LLAMACPP, "model": MODEL, "options": llamacpp, "start_timeout_s": START_S},
    ]


class LoopGateway(Gateway):
    """One model with several pools."""

    def __init__(self, workdir: Path, pools: Sequence[Mapping[str, Any]]) -> None:
        models = [{"name": MODEL, "pools": [dict(pool) for pool in pools]}]
        super().__init__(workdir, NUM_WORKERS, {MODEL: pools[0]}, START_S, {"models": models})

    async def served(self, alias: str) -> list[str]:
        """Versions; empty where there is no such alias. Raises GatewayError."""
        found = [one for one in await self._list("/admin/v1/aliases") if one["name"] == alias]
        return [share["adapter"] for one in found for share in one["shares"]]


@dataclass(slots=True)
class Clients:
    """Each streams one answer after the other, until the block ends."""

    target: Target
    num_clients: int
    models: list[str]
    """Asked in turn; a name may be added while they stream."""
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By version and engine."""
    failed: list[str] = field(default_factory=list)
    _is_over: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def num_requests(self) -> int:
        return self.answered.total() + len(self.failed)

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "num_clients": self.num_clients, "num_requests": self.num_requests, "num_failed": len(self.failed),
            "failed": self.failed[:10],
            "answered": [{"version": version, "engine": engine, "num": num} for (version, engine), num in sorted(self.answered.items())],
        }  # fmt: skip

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._stream(number)) for number in range(self.num_clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        await asyncio.gather(*self._tasks)

    async def _stream(self, number: int) -> None:
        client = Client(self.target, timeout_s=TIMEOUT_S)
        for turn in itertools.count(number):
            if self._is_over.is_set():
                break
            model = self.models[turn % len(self.models)]
            self._count(await adapter_answers.ask(client, model, turn % len(QUESTIONS), STREAM_TOKENS))
            await asyncio.sleep(PAUSE_S)
        client.close()

    def _count(self, reply: Reply) -> None:
        if reply.ending is not Ending.ANSWERED or not reply.text:
            self.failed.append(f"{reply.model}: {reply.ending.value}: {reply.detail or 'without text'}")
        else:
            self.answered[reply.version, reply.engine] += 1


@dataclass(slots=True)
class Asked:
    """The alias, asked to read a ticket until every engine has."""

    replies: list[Reply] = field(default_factory=list)

    @property
    def engines(self) -> set[str]:
        return {reply.engine for reply in self.replies}

    def fault(self, version: str) -> str:
        """What speaks against each engine's having answered, all of them by this version; empty for nothing."""
        bad = [f"{reply.ending.value}: {reply.detail}" for reply in self.replies if reply.ending is not Ending.ANSWERED]
        bad += [
            f"{reply.version or 'nobody'} answered on {reply.engine}"
            for reply in self.replies
            if reply.version != version
        ]
        bad += [f"{engine} was not reached" for engine in sorted(ENGINES.keys() - self.engines)]
        return "; ".join(dict.fromkeys(bad))

    def as_dict(self) -> list[dict[str, Any]]:
        """The first of each engine."""
        return [{"engine": engine, "version": first.version, "text": first.text} for engine, first in self._firsts()]

    def _firsts(self) -> Iterator[tuple[str, Reply]]:
        for engine in sorted(self.engines):
            yield engine, next(reply for reply in self.replies if reply.engine == engine)


async def read_ticket(target: Target) -> Asked:
    """From now on; what is wrong is inside."""
    client, asked = Client(target, timeout_s=TIMEOUT_S), Asked()
    for _ in range(NUM_ROUNDS):
        asked.replies += await asyncio.gather(*(_read(client, number) for number in range(NUM_AT_ONCE)))
        if ENGINES.keys() <= asked.engines:
            break
    client.close()
    return asked


async def _read(client: Client, number: int) -> Reply:
    body = orjson.dumps(
        {"model": ALIAS, "messages": [{"role": "user", "content": TICKET}], "max_tokens": TICKET_TOKENS,
         "temperature": 0, "stream": True}
    )  # fmt: skip
    due_s = client.clock()
    return adapter_answers.read(
        await client.post(CHAT.path, body), Request(number, body, TICKET_TOKENS, False), ALIAS, due_s
    )
