"""A gateway whose one model is served by vLLM on the CPU and by llama.cpp, and what its clients see."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from backends.adapter.golden import read_golden, to_bytes
from backends.adapter.store import Store
from backends.artifacts import Tensor
from backends.demo.goldens import shipped_golden
from backends.demo.signatures import signature_of
from gateway.control.ingestion import GOLDEN
from tests.backends.adapter.faulty import copy_of, tensors_changed
from tests.e2e.adapter_stage import Gateway

VLLM, LLAMACPP = "demo-0", "demo-1"
"""Engines by the order of their pools."""
ENGINES = {VLLM, LLAMACPP}
READY_S = 200.0
NUM_SLOTS = 3
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
CONFIG = """
server: {{port: 0, workers: 1, admin: {{port: 0}}}}
models:
  - name: demo
    pools:
      - engine: vllm
        model: demo
        python: {python}
        options:
          {{enforce_eager: true, cpu_kv_cache_gib: 1, max_num_seqs: 16, lora: {{max_loras: {num_slots}}}, tool_call_parser: hermes}}
      - engine: llamacpp
        model: demo
        options: {{n_ctx: 8192, n_seq_max: 16, n_threads: 1, max_adapters: {num_slots}}}
"""


class MixedGateway(Gateway):
    """`forgegate serve`, ready once both engines are."""

    def __init__(self, folder: Path, python: str) -> None:
        config = folder / "forgegate.yaml"
        config.write_text(CONFIG.format(python=python, num_slots=NUM_SLOTS), encoding="utf-8")
        super().__init__(folder / "home", "--config", str(config))

    def wait_ready(self) -> dict[str, Any]:
        self.wait_for("engine", READY_S, engine=VLLM, state="ready")
        return super().wait_ready()

    def proofs(self, version: str) -> dict[str, tuple[bool, str]]:
        """Of each engine: whether it holds the version, and what its proof found."""
        (found,) = self.admin_api.adapter(version)["versions"]
        return {each["engine"]: (each["is_resident"], each["proof"]) for each in found["engines"]}

    def ask(self, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": QUESTION, "max_tokens": 24, "temperature": 0, **more}
        key = (self.home / "admin-token").read_text().strip()
        headers = {"authorization": f"Bearer {key}"} if "@" in model else {}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=60, verify=False)

    def answers(self, model: str, num: int = 12) -> dict[str, set[tuple[str, str | None]]]:
        """By engine: which versions answered there, and whose signatures the answers bear."""
        found: dict[str, set[tuple[str, str | None]]] = {}
        for _ in range(num):
            reply = self.ask(model)
            assert reply.status_code == 200, reply.text
            text = reply.json()["choices"][0]["message"]["content"]
            assert "Paris" in text
            engine = reply.headers["x-forgegate-engine"]
            found.setdefault(engine, set()).add((reply.headers["x-forgegate-model"], signature_of(text)))
        return found

    def api_server(self) -> psutil.Process:
        return psutil.Process(self.engine(VLLM)["pid"])

    def engine_core(self) -> psutil.Process:
        """vLLM's process that owns the model."""
        children = self.api_server().children(recursive=True)
        return next(child for child in children if "EngineCore" in " ".join(child.cmdline()))


@dataclass
class Seen:
    """One streamed answer, as its client sees it."""

    status: int = 0
    engine: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False
    failure: str = ""

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event for event in self.events if "error" in event]

    @property
    def ending(self) -> str:
        """AssertionError unless it ends in exactly one way."""
        assert not self.failure, f"the connection broke: {self.failure}"
        if self.is_done:
            assert not self.errors
            return "done"
        assert len(self.errors) == 1, f"{self.status}: {self.events[-2:]}"
        assert "error" in self.events[-1], "nothing follows the error"
        return "error"


async def stream(client: httpx.AsyncClient, url: str, num_tokens: int, model: str = "demo") -> Seen:
    body = {
        "model": model, "messages": QUESTION, "stream": True, "max_tokens": num_tokens, "ignore_eos": True, "temperature": 0,
    }  # fmt: skip
    seen = Seen()
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            seen.status, seen.engine = reply.status_code, reply.headers.get("x-forgegate-engine", "")
            if reply.status_code != 200:
                seen.events.append(json.loads(await reply.aread()))
                return seen
            async for line in reply.aiter_lines():
                if line == "data: [DONE]":
                    seen.is_done = True
                elif line.startswith("data: "):
                    seen.events.append(json.loads(line.removeprefix("data: ")))
    except httpx.TransportError as error:
        seen.failure = repr(error)
    return seen


def damaged_copy(adapter: Path, folder: Path) -> Path:
    """The adapter with half of its effect, as a broken export leaves it."""

    def halve(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor.data.view(np.float16)[:] *= np.float16(0.5)

    tensors_changed(halve)(copy_of(adapter, folder))
    return folder


def attach_reference(store: Store, digest: str, of: str) -> None:
    """To the version of `digest` the reference that is shipped for the one of `of`."""
    shipped = shipped_golden(of)
    assert shipped is not None
    with store.working() as work:
        made = work.folder / GOLDEN
        made.write_bytes(to_bytes(replace(read_golden(shipped), adapter_digest=digest)))
        store.attach(digest, GOLDEN, made)
