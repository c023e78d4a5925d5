"""LoRA adapters on an engine over HTTP: vLLM's calls, which our llama.cpp engine answers too. Stdlib and msgspec only.

POST /v1/load_lora_adapter {lora_name, lora_path}      POST /v1/unload_lora_adapter {lora_name}
GET  /v1/models                                        POST /v1/completions with echo and max_tokens 0: scores
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from backends.adapter.percall import parts
from backends.base import Call, Fetch, HeldAdapter, Reply
from backends.errors import AdapterRefused, NoSlot, ProbeFailed
from backends.remote import listed_models

LOAD_PATH, UNLOAD_PATH, SCORE_PATH = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"
LOAD_TIMEOUT_S = 120.0
SCORE_TIMEOUT_S = 300.0
_GRACE_S = 5.0
"""More than an unloading is given: that it took too long is another matter than an engine that does not answer."""
_ALREADY = "already been loaded"
"""vLLM's words for a name that it holds; ours answers 200 where the file is the same."""


class LoraCalls:
    """`backends.base.AdapterCalls` over vLLM's wire."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name

    async def load(self, call: Call, name: str, path: Path) -> None:
        reply = await call(LOAD_PATH, _json(lora_name=name, lora_path=str(path)), LOAD_TIMEOUT_S)
        if reply.status == 409:
            raise NoSlot(reason_of(reply))
        if reply.status != 200 and _ALREADY not in (reason := reason_of(reply)):
            raise AdapterRefused(reason)

    async def unload(self, call: Call, name: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                reply = await call(UNLOAD_PATH, _json(lora_name=name), timeout_s + _GRACE_S)
        except TimeoutError as exc:
            raise AdapterRefused(f"{name} is still used by requests after {timeout_s:g} s") from exc
        if reply.status not in (200, 404):
            raise AdapterRefused(reason_of(reply))

    async def resident(self, fetch: Fetch) -> Mapping[str, HeldAdapter]:
        reply = await fetch("/v1/models")
        if reply.status != 200:
            raise ProbeFailed(f"/v1/models answers {reply.status}: {reason_of(reply)}")
        held = [model for model in listed_models(reply) if model.get("parent")]
        return {
            str(model.get("id")): HeldAdapter(_count(model.get("num_running")), model.get("is_leaving") is True)
            for model in held
        }

    async def score(self, call: Call, model: str, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        scores: list[list[float]] = []
        for some in parts(texts):
            body = _json(model=model, prompt=[list(text) for text in some], max_tokens=0, echo=True, logprobs=0)
            reply = await call(SCORE_PATH, body, SCORE_TIMEOUT_S)
            if reply.status != 200:
                raise AdapterRefused(reason_of(reply))
            scores += _scores(reply, some)
        return scores


def reason_of(reply: Reply) -> str:
    """The message of an error object of OpenAI's or vLLM's form, else the beginning of the body."""
    try:
        content = msgspec.json.decode(reply.body)
        error = content.get("error", content)
        return str(error["message"])
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return reply.text[:200] or f"status {reply.status}"


def _scores(reply: Reply, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Raises AdapterRefused where the answer is not one log-probability for each token but the first."""
    try:
        choices = sorted(msgspec.json.decode(reply.body)["choices"], key=lambda choice: int(choice["index"]))
        found = [[float(value) for value in choice["logprobs"]["token_logprobs"][1:]] for choice in choices]
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as exc:
        raise AdapterRefused(f"the engine's scores cannot be read: {reply.text[:200]}") from exc
    counts, wanted = [len(values) for values in found], [len(text) - 1 for text in texts]
    if counts != wanted:
        raise AdapterRefused(f"the engine scored {counts} tokens of texts that have {wanted}")
    return found


def _json(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
