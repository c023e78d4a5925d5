"""A loaded model under its name: what every engine answers about it, whatever it was started for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.api.fields import RequestError
from backends.llamacpp.api.tokens import DetokenizeRequest, TokenizeRequest
from backends.llamacpp.binding.devices import compute_backend
from backends.llamacpp.binding.model import Model

Tokens = NDArray[np.int32]
OFF_LOOP_BYTES = 8192
"""Longer bodies are read, and their texts tokenised, in another thread."""
_RETRY_AFTER_S = 1


T = TypeVar("T")


async def off_loop(is_long: bool, work: Callable[[], T]) -> T:
    """What `work` gives: from another thread where it takes long, so that other streams go on."""
    return await asyncio.to_thread(work) if is_long else work()


class Overloaded(Exception):
    """The waiting line is full; try again after `retry_after_s` seconds."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.retry_after_s = _RETRY_AFTER_S


class Unavailable(Exception):
    """The engine is stopping or dead."""


class Page(Protocol):
    def page(self) -> bytes:
        """The Prometheus text format."""
        ...


class RunningEngine(Protocol):
    """What engines have in common."""

    model: Model
    num_threads: int
    max_length: int
    failure: str | None

    @property
    def metrics(self) -> Page: ...

    @property
    def is_alive(self) -> bool: ...

    def wait(self) -> None: ...

    def close(self) -> None: ...


class ServedModel:
    """One model under one name."""

    capabilities: tuple[str, ...] = ("tokenize",)

    def __init__(self, name: str, engine: RunningEngine) -> None:
        self.name = name
        self.created = int(time.time())
        self._engine = engine
        self._model = engine.model

    @property
    def is_alive(self) -> bool:
        return self._engine.is_alive

    @property
    def failure(self) -> str | None:
        """Why the engine died."""
        return self._engine.failure

    def close(self) -> None:
        """Stop the engine and free everything."""
        self._engine.close()
        self._model.close()

    def wait(self) -> None:
        """Block until the engine ended, for whatever reason."""
        self._engine.wait()

    def hand_out(self, outputs: list[Any]) -> None:
        """Give what a step of the engine produced to whoever waits for it. On the event loop."""
        raise NotImplementedError

    def purpose(self) -> str:
        """What it was started for, in a clause, for messages."""
        raise NotImplementedError

    def summary(self) -> str:
        """The line that announces it."""
        model = self._model
        return f"{self.name}: {model.description}, {model.n_params / 1e6:,.1f} M parameters; {self.purpose()}"

    def metrics_page(self) -> bytes:
        return self._engine.metrics.page()

    def health(self) -> dict[str, Any]:
        """What /health answers while the engine lives."""
        return {
            "status": "ok",
            "model": self.name,
            "backend": compute_backend(),
            "n_threads": self._engine.num_threads,
        }

    def names(self) -> list[str]:
        """What a request may name."""
        return [self.name]

    def models(self) -> list[dict[str, Any]]:
        """The entries in /v1/models."""
        return [self.describe()]

    def describe(self) -> dict[str, Any]:
        """The model's own entry."""
        model = self._model
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "forgegate",
            "max_model_len": self._engine.max_length,
            "capabilities": list(self.capabilities),
            "meta": {
                "description": model.description,
                "num_params": model.n_params,
                "size_bytes": model.size_bytes,
                "vocab_size": model.n_vocab,
                "context_length_trained": model.n_ctx_train,
                "source_digest": model.metadata("forgegate.source_digest"),
                "backend": compute_backend(),
            },
        }

    def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Token ids of a text or of rendered messages. Raises RequestError. Any thread."""
        self._check_model(request.model)
        if request.prompt is not None:
            add_special = request.add_special_tokens is not False
            tokens = self._model.tokenize(request.prompt, add_special=add_special)
        else:
            tokens = self._encode_messages(request)
        found: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": self._engine.max_length,
            "tokens": tokens.tolist(),
        }
        if request.return_token_strs:
            found["token_strs"] = [
                self._model.token_text(token).decode("utf-8", "replace") for token in tokens.tolist()
            ]
        return found

    def detokenize(self, request: DetokenizeRequest) -> dict[str, Any]:
        """The text of token ids. Raises RequestError. Any thread."""
        self._check_model(request.model)
        self._check_tokens(request.tokens, "tokens")
        return {"prompt": self._model.detokenize(request.tokens)}

    def token_text(self, token: int) -> bytes:
        """The bytes of a token, control tokens by their text."""
        return self._model.token_text(token)

    def _check_model(self, model: str | None) -> None:
        if model is not None and model not in (known := self.names()):
            raise RequestError(
                f"unknown model {model!r}; this engine serves {', '.join(map(repr, known))}",
                param="model",
                code="model_not_found",
                status=404,
            )

    def _encode_messages(self, request: TokenizeRequest) -> Tokens:
        raise RequestError(f"{self.name} was started {self.purpose()}: it has no messages", param="messages")

    def _check_tokens(self, tokens: list[int], param: str) -> None:
        wrong = next((token for token in tokens if token >= self._model.n_vocab), None)
        if wrong is not None:
            last = self._model.n_vocab - 1
            raise RequestError(f"{param}: no such token: {wrong} (the last one is {last})", param=param)
