"""An OpenAI-compatible server in the test's own process that says what a script tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Script = Callable[[dict[str, Any], int], "str | httpx.Response"]
"""Of a request's body and its number, the answer's text, or all of the answer."""


@dataclass
class Server:
    """A transport for httpx; keeps what it was asked."""

    script: Script
    counts_tokens: bool = True
    pause_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    num_running: int = 0
    most_running: int = 0

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        await asyncio.sleep(self.pause_s)
        self.num_running -= 1
        body = json.loads(request.content)
        number = len(self.bodies)
        self.bodies.append(body)
        self.headers.append(request.headers)
        said = self.script(body, number)
        if isinstance(said, httpx.Response):
            return said
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": said}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        if self.counts_tokens:
            chunks.append({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20}})
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=lines)


def lines_of(*pairs: tuple[str, str]) -> str:
    return "\n".join(
        json.dumps({"question": question, "answer": answer}, ensure_ascii=False) for question, answer in pairs
    )
