"""A real llama.cpp engine as a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

SECRET = "test-secret"


@dataclass(frozen=True)
class EngineProcess:
    url: str
    process: subprocess.Popen[str]
    log: Path

    def client(self, **options: object) -> httpx.Client:
        headers = {"authorization": f"Bearer {SECRET}"}
        # Loading certificates takes longer than many an answer of the demo model.
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False, **options)  # type: ignore[arg-type]

    def metric(self, name: str) -> float:
        with self.client() as client:
            page = client.get("/metrics").text
        line = next(line for line in page.splitlines() if line.startswith(f"forgegate_engine_{name} "))
        return float(line.split()[1])

    def wait_idle(self, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while self.metric("num_requests_running") + self.metric("num_requests_waiting"):
            assert time.monotonic() < deadline, "the engine does not come to rest"
            time.sleep(0.05)


@contextmanager
def engine_process(gguf: Path, port: int, log: Path, *flags: str) -> Iterator[EngineProcess]:
    command = [sys.executable, "-m", "backends.llamacpp.server", "--model", str(gguf), "--served-model-name", "demo"]
    command += ["--port", str(port), *flags]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, text=True, env=os.environ | {"FORGEGATE_ENGINE_SECRET": SECRET}
        )
    engine = EngineProcess(f"http://127.0.0.1:{port}", process, log)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, f"the engine ended at once:\n{log.read_text()}"
            assert time.monotonic() < deadline, "the engine did not become ready"
            try:
                if httpx.get(f"{engine.url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the engine did not stop:\n{log.read_text()}")
