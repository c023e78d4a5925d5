"""What a ready vLLM says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from backends.base import Facts, Fetch, Reply
from backends.remote import listed_models
from backends.vllm.options import Options

ROUTES: Mapping[str, str] = {
    "chat": "/v1/chat/completions", "completions": "/v1/completions", "tokenize": "/tokenize", "embeddings": "/v1/embeddings",
    "responses": "/v1/responses", "messages": "/v1/messages",
}  # fmt: skip
"""Capability -> where it is answered. Which of them a server has depends on the model's task, and on the version."""
_CHATS = frozenset({"chat", "responses", "messages"})
"""APIs that need a chat template."""
DEVICES = {"cpu": "CPU", "cuda": "CUDA", "rocm": "ROCm", "xpu": "XPU", "tpu": "TPU"}
_NOT_FOUND = 404


async def inspect(fetch: Fetch, served_name: str, device: str, options: Options, has_chat_template: bool) -> Facts:
    """Raises ProbeFailed."""
    version, models, *routes = await asyncio.gather(
        fetch("/version"), fetch("/v1/models"), *(fetch(path) for path in ROUTES.values())
    )
    listed = next((model for model in listed_models(models) if model.get("id") == served_name), {})
    length = listed.get("max_model_len")
    # These take POST only: another method is told from a path that is not there.
    there = [name for name, reply in zip(ROUTES, routes, strict=True) if reply.status != _NOT_FOUND]
    return Facts(
        description=describe(version_of(version), device, options),
        context_length=length if isinstance(length, int) else None,
        model=served_name,
        capabilities=capabilities_of(there, options, has_chat_template),
        refused_options=options.refused_by_speculation,
    )


def describe(version: str, device: str, options: Options) -> str:
    """`vLLM 0.32 on CPU`, `vLLM 0.26 on 2 CUDA GPUs`."""
    words = ".".join(version.split(".")[:2])
    where = DEVICES.get(device, device)
    if device != "cpu":
        where = f"{options.num_gpus} {where} GPUs" if options.num_gpus > 1 else where
    speculating = f", speculating with {options.speculative.method}" if options.speculative else ""
    return f"vLLM{f' {words}' if words else ''} on {where}{speculating}"


def capabilities_of(routes: list[str], options: Options, has_chat_template: bool) -> tuple[str, ...]:
    """Special tokens' texts in messages are parsed, so `literal_special_text` is never among them."""
    found = [name for name in routes if has_chat_template or name not in _CHATS]
    if "chat" in found:
        found.append("json_schema")
        if options.tool_call_parser:
            found.append("tools")
    return tuple(found)


def version_of(reply: Reply) -> str:
    """Empty where it does not say."""
    try:
        return str(msgspec.json.decode(reply.body)["version"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""
