"""Real processes for tests: stub engines as a pool would run them, and a whole `forgegate serve` to talk to."""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
STUB = ROOT / "tests" / "stub_engine.py"


def write_gguf(path: Path, source_digest: str = "", **extra: str | int) -> Path:
    """A tiny whole GGUF, enough for whoever only reads its head; `extra` metadata, `__` for dots."""
    entries: dict[str, str | int] = {
        "general.architecture": "llama", "llama.context_length": 2048, "llama.block_count": 1,
        "llama.embedding_length": 64, "llama.attention.head_count": 1, "llama.feed_forward_length": 64,
    }  # fmt: skip
    if source_digest:
        entries["forgegate.source_digest"] = source_digest
    entries.update({key.replace("__", "."): value for key, value in extra.items()})
    body = b""
    for key, value in entries.items():
        encoded = _gguf_string(value) if isinstance(value, str) else struct.pack("<I", value)
        body += _gguf_string(key) + struct.pack("<I", 8 if isinstance(value, str) else 4) + encoded
    tensor = _gguf_string("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 8, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + body + tensor
    path.write_bytes(head + b"\0" * (-len(head) % 32 + 64 * 8 * 4))
    return path


def stub_python(folder: Path, *flags: str) -> Path:
    """An "interpreter" for a pool's `python:` that has all modules and runs the stub engine, with these faults."""
    path = folder / f"python-{abs(hash(flags))}"
    stub = shlex.join([sys.executable, str(STUB), *flags])
    answers = '[ "$2" = -c ] && exit 0\n[ "$3" = backends.llamacpp.binding.devices ] && echo "[]" && exit 0'
    path.write_text(f'#!/bin/sh\n{answers}\nshift 3\nexec {stub} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def stub_config(folder: Path, *flags: str, workers: int = 1, replicas: int = 1, extra: str = "") -> Path:
    """A configuration whose one model `demo` is served by stub engines."""
    gguf, python = write_gguf(folder / "stub.gguf"), stub_python(folder, *flags)
    path = folder / "forgegate.yaml"
    path.write_text(
        f"server: {{port: 0, workers: {workers}, admin: {{port: 0}}}}\n"
        f"models:\n  - name: demo\n    pools:\n"
        f"      - {{engine: llamacpp, model: {gguf}, python: {python}, replicas: {replicas}}}\n{extra}",
        encoding="utf-8",
    )
    return path


class Served:
    """A running `forgegate serve --json`; its events come through a queue. Use as a context manager."""

    def __init__(self, home: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.home = home
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--json", *arguments],
            cwd=ROOT, env={**os.environ, "FORGEGATE_HOME": str(home), **(env or {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put({"event": "eof"})

    def wait_for(self, event: str, timeout_s: float = 20.0, **fields: Any) -> dict[str, Any]:
        """The next event of this kind with these fields; the others before it are dropped."""
        deadline = time.monotonic() + timeout_s
        while True:
            got = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if got["event"] == event and all(got.get(key) == value for key, value in fields.items()):
                return got
            assert got["event"] != "eof", f"forgegate ended while waiting for {event}: {self.process.stderr.read()}"  # type: ignore[union-attr]

    def wait_ready(self) -> dict[str, Any]:
        ready = self.wait_for("ready")
        self.url, self.admin_url = ready["url"], ready["admin_url"]
        return ready

    def admin(self, method: str, path: str) -> Any:
        token = (self.home / "admin-token").read_text().strip()
        reply = httpx.request(method, self.admin_url + path, headers={"authorization": f"Bearer {token}"}, timeout=10)
        reply.raise_for_status()
        return reply.json()

    def engine(self, engine_id: str = "demo-0") -> dict[str, Any]:
        return next(engine for engine in self.admin("GET", "/admin/v1/engines")["data"] if engine["id"] == engine_id)

    def tree(self) -> list[psutil.Process]:
        """Every process below it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[int]:
        return [child.pid for child in self.tree() if "gateway.data.worker" in child.cmdline()]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        return self.process.wait(timeout_s)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.wait()
        self._reader.join(5.0)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """The first true value of `condition`; AssertionError when it stays false."""
    deadline = time.monotonic() + timeout_s
    is_over = False
    while True:
        if value := condition():
            return value
        assert not is_over, f"still not true after {timeout_s:g} s"
        time.sleep(0.02)
        is_over = time.monotonic() >= deadline  # looked at once more: the machine may have stood still


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


@contextmanager
def interruptible() -> Iterator[None]:
    """Children started here get SIGINT as from a terminal, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
