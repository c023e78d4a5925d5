"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them
(https://docs.vllm.ai/en/latest/features/lora.html#dynamically-serving-lora-adapters).

Unloading answers once the last request that uses the adapter has ended. A client that goes away before withdraws it, and so
does a load of the same name: the adapter serves again, and `is_leaving` in /v1/models is false.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from backends.llamacpp.api.fields import RequestError, parse

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the first."""

    lora_name: Name
    lora_path: Annotated[str, Meta(min_length=1, max_length=4096)]
    """A GGUF LoRA file on this machine."""
    load_inplace: bool = False


class UnloadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the second."""

    lora_name: Name
    lora_int_id: int | None = None
    """vLLM's; names are enough here."""


def read_load(body: bytes) -> LoadRequest:
    """Raises RequestError."""
    request = parse(body, LoadRequest)
    if request.load_inplace:
        raise RequestError(
            "load_inplace: a name is never reused for other weights; load them under another one", param="load_inplace"
        )
    return request


def read_unload(body: bytes) -> UnloadRequest:
    """Raises RequestError."""
    return parse(body, UnloadRequest)
