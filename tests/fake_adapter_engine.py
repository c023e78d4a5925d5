"""An engine's LoRA calls in memory: the wire of `backends.adapter.calls` without a process behind it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from backends.base import Reply

BASE = "demo"


class FakeAdapterEngine:
    """Answers `Call` and `Fetch`. Scores are made of the token and the model's name, so that every model has its own."""

    def __init__(self, num_slots: int = 2) -> None:
        self.num_slots = num_slots
        self.held: dict[str, str] = {}
        """name -> path"""
        self.num_running: dict[str, int] = {}
        self.idle = asyncio.Event()
        """Set: no request uses an adapter that is to be unloaded."""
        self.idle.set()
        self.leaving: dict[str, asyncio.Future[None]] = {}
        """By name: done once it was taken back. One unloading at a time for each."""
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(self, path: str, body: bytes, timeout_s: float) -> Reply:
        fields = msgspec.json.decode(body)
        self.calls.append((path, fields))
        answers: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "/v1/load_lora_adapter": self._load,
            "/v1/completions": self._score,
        }
        if path == "/v1/unload_lora_adapter":
            return await self._unload(fields["lora_name"])
        return answers[path](fields) if path in answers else _error(404, f"no such endpoint: {path}")

    async def fetch(self, path: str) -> Reply:
        data: list[dict[str, Any]] = [{"id": BASE, "parent": None}]
        data += [
            {
                "id": name,
                "parent": BASE,
                "root": root,
                "num_running": self.num_running.get(name, 0),
                "is_leaving": name in self.leaving,
            }
            for name, root in self.held.items()
        ]
        return Reply(200, msgspec.json.encode({"object": "list", "data": data}))

    def _load(self, fields: dict[str, Any]) -> Reply:
        name, path = fields["lora_name"], fields["lora_path"]
        if name in self.held:
            if self.held[name] == path:
                if name in self.leaving:
                    self.leaving.pop(name).set_result(None)
                return Reply(200, b"Success")
            return _error(400, f"the adapter {name!r} is loaded from {self.held[name]}")
        if not Path(path).is_file():
            return _error(400, f"cannot load the adapter {path}: no such file")
        if len(self.held) >= self.num_slots:
            return _error(409, f"all {self.num_slots} places for adapters are taken")
        self.held[name] = path
        return Reply(200, b"Success")

    async def _unload(self, name: str) -> Reply:
        if name not in self.held:
            return _error(404, f"the adapter {name!r} cannot be found")
        self.leaving[name] = taken_back = asyncio.get_running_loop().create_future()
        idle = asyncio.ensure_future(self.idle.wait())
        try:
            await asyncio.wait({idle, taken_back}, return_when=asyncio.FIRST_COMPLETED)
            if taken_back.done():
                return _error(409, f"the adapter {name!r} was loaded again before it was gone: it stays")
            del self.held[name]
        finally:
            idle.cancel()
            if self.leaving.get(name) is taken_back:
                del self.leaving[name]
        return Reply(200, b"Success")

    def _score(self, fields: dict[str, Any]) -> Reply:
        model = fields["model"]
        if model != BASE and (model not in self.held or model in self.leaving):
            return _error(404, f"unknown model {model!r}")
        own = sum(model.encode()) % 97
        choices = [
            {
                "index": index,
                "logprobs": {"token_logprobs": [None, *(-math.log(2 + token % 7 + own) for token in text[1:])]},
            }
            for index, text in enumerate(fields["prompt"])
        ]
        return Reply(200, msgspec.json.encode({"choices": choices[::-1]}))


def _error(status: int, message: str) -> Reply:
    return Reply(status, msgspec.json.encode({"error": {"message": message}}))
