"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from backends.llamacpp.api.chat import Message, ToolDefinition, without_nulls
from backends.llamacpp.api.fields import HARMLESS, RequestError, Token, convert, read_object

MAX_LENGTH = 4 * 1024 * 1024
"""Characters, or tokens, of one request."""


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Either `prompt` or `messages`."""

    model: str | None = None
    prompt: Annotated[str, Meta(max_length=MAX_LENGTH)] | None = None
    messages: list[Message] | None = None
    tools: list[ToolDefinition] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool | None = None
    """None: true."""
    return_token_strs: bool = False


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids."""

    model: str | None = None
    tokens: Annotated[list[Token], Meta(max_length=MAX_LENGTH)]


def read(body: bytes) -> TokenizeRequest:
    """The body of /tokenize. Raises RequestError."""
    request = convert(without_nulls(read_object(body)), TokenizeRequest, harmless=HARMLESS)
    _check(request)
    return request


def _check(request: TokenizeRequest) -> None:
    if (request.prompt is None) == (request.messages is None):
        raise RequestError("give either prompt or messages", param="prompt")
    if request.messages is None:
        for name in ("tools", "chat_template_kwargs"):
            if getattr(request, name) is not None:
                raise RequestError(f"{name}: only with messages", param=name)
    elif request.add_special_tokens is not None:
        raise RequestError(
            "add_special_tokens: only with prompt; messages have the tokens that the chat template writes",
            param="add_special_tokens",
        )
