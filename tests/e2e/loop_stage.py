"""The shipped example beside a gateway with two replicas, and its commands as a user types them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.e2e.adapter_stage import Gateway
from tests.processes import ROOT, eventually

EXAMPLE = ROOT / "deploy" / "examples" / "support-tickets"
CONFIG = """
server: {port: 0, workers: 2, admin: {port: 0}}
models:
  - name: demo
    pools: [{engine: llamacpp, model: demo, replicas: 2, options: {n_ctx: 8192, n_seq_max: 16, n_threads: 1, max_adapters: 4}}]
"""
ENGINES = {"demo-0", "demo-1"}
TICKET = "저는 민지입니다. 주문 번호는 4812입니다. 색은 빨간색입니다. 타이머가 고장 났어요. 급해요."
FIELDS = {"name": "민지", "order": 4812, "color": "red", "reason": "timer", "urgent": True}
COMMAND_S, READY_S = 2400.0, 60.0
NUM_CLIENTS, PAUSE_S = 2, 0.5


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str
    seconds: float


class Loop(Gateway):
    """The gateway that runs here, and a copy of the example to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "deploy" / "examples" / "support-tickets"
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns("data", "outputs"))
        # README's way from the example to what is shipped beside it.
        (folder / "backends").symlink_to(ROOT / "backends")
        config = folder / "forgegate.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        super().__init__(folder / "home", "--config", str(config))

    def wait_ready(self) -> dict[str, Any]:
        """Both replicas."""
        told = super().wait_ready()
        eventually(lambda: all(self.engine(engine)["state"] == "ready" for engine in ENGINES), READY_S)
        return told

    def type(self, line: str) -> Done:
        """A line of a shell, in the example's folder; `forgegate` and `python` are those that run the tests."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, capture_output=True, text=True, timeout=COMMAND_S,
            env={**os.environ, "PATH": path, "FORGEGATE_HOME": str(self.home), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def served(self, alias: str) -> list[str]:
        """Versions; empty where there is no such alias."""
        found = [one for one in self.admin_api.aliases() if one["name"] == alias]
        return [share["adapter"] for one in found for share in one["shares"]]

    def asked(self, model: str, text: str = TICKET) -> tuple[str, str]:
        """The answer, and the version that gave it."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 64}
        reply = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
        return reply.json()["choices"][0]["message"]["content"], reply.headers["x-forgegate-model"]


@dataclass
class Load:
    """Clients that ask one after the other, whole answers of the base and of the alias once it is there, until the block ends."""

    gateway: Loop
    alias: str
    versions: Counter[str] = field(default_factory=Counter)
    """How often each version answered."""
    engines: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    has_alias: bool = False
    """From when on the alias is asked, too: before, a 404 would be no failure."""

    def __post_init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self.gateway.url, timeout=120) as client:
            await asyncio.gather(*(self._ask_on(client) for _ in range(NUM_CLIENTS)))

    async def _ask_on(self, client: httpx.AsyncClient) -> None:
        while not self._is_over.is_set():
            for model in ("demo", self.alias) if self.has_alias else ("demo",):
                await self._ask(client, model)
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, client: httpx.AsyncClient, model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": TICKET}], "temperature": 0, "max_tokens": 64}
        try:
            reply = await client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as exc:
            self.failed.append(repr(exc))
            return
        if reply.status_code != 200 or not json.loads(reply.content)["choices"][0]["message"]["content"]:
            self.failed.append(f"{model}: {reply.status_code} {reply.text[:200]}")
            return
        self.versions[reply.headers["x-forgegate-model"]] += 1
        self.engines[reply.headers["x-forgegate-engine"]] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
