"""vLLM's API server as the guard sees it: the application, its table of names, an engine that keeps weights by number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

BASE = "demo"


@dataclass
class Lora:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class TinyEngine:
    """`weights` is what the workers keep, by number."""

    weights: set[int] = field(default_factory=set)
    output_processor: Any = field(default_factory=lambda: SimpleNamespace(request_states={}))
    fails: str = ""
    may_free: asyncio.Event = field(default_factory=asyncio.Event)

    async def list_loras(self) -> set[int]:
        return set(self.weights)

    async def remove_lora(self, lora_id: int) -> bool:
        await self.may_free.wait()
        if self.fails:
            raise RuntimeError(self.fails)
        self.weights.discard(lora_id)
        return True


class TinyServer:
    """Requests last until `go` is set; `?words` are streamed. `seen` has the bodies that came through."""

    def __init__(self) -> None:
        self.engine = TinyEngine()
        self.engine.may_free.set()
        self.models = SimpleNamespace(lora_requests={})
        self.go = asyncio.Event()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.started = asyncio.Event()
        self.seen: list[bytes] = []
        self._last_id = 0
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/load_lora_adapter", self._load, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/broken", self._broken, methods=["POST"]),
                Route("/adapters", self._health, methods=["POST"]),
            ]
        )
        self.app.state.engine_client = self.engine
        self.app.state.openai_serving_models = self.models

    @property
    def names(self) -> list[str]:
        return sorted(self.models.lora_requests)

    async def _health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def _broken(self, request: Request) -> Response:
        raise RuntimeError("broken")

    async def _models(self, request: Request) -> Response:
        loras = self.models.lora_requests.values()
        data: list[dict[str, Any]] = [{"id": BASE, "parent": None}]
        data += [{"id": lora.lora_name, "root": lora.lora_path, "parent": BASE} for lora in loras]
        return JSONResponse({"object": "list", "data": data})

    async def _load(self, request: Request) -> Response:
        asked = await request.json()
        await self.may_load.wait()
        if asked["lora_path"] == "/bad":
            return JSONResponse({"error": {"message": "no adapter there"}}, 500)
        self._last_id += 1
        self.engine.weights.add(self._last_id)
        self.models.lora_requests[asked["lora_name"]] = Lora(asked["lora_name"], self._last_id, asked["lora_path"])
        return Response("Success")

    async def _complete(self, request: Request) -> Response:
        body = await request.body()
        self.seen.append(body)
        asked = json.loads(body)
        if asked["model"] != BASE and asked["model"] not in self.models.lora_requests:
            message = f"The model `{asked['model']}` does not exist."
            return JSONResponse({"error": {"message": message, "type": "NotFoundError"}}, 404)
        if asked.get("stream"):
            return StreamingResponse(self._words())
        self.started.set()
        await self.go.wait()
        return JSONResponse({"text": "done"})

    async def _words(self) -> AsyncIterator[bytes]:
        yield b"first "
        self.started.set()
        await self.go.wait()
        yield b"last"
