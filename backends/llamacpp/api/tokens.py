"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.llamacpp.api.chat import Message, ToolDefinition
from backends.llamacpp.api.fields import Token


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[ToolDefinition] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids."""

    model: str | None = None
    tokens: list[Token]
