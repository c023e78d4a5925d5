"""A loaded model ready to answer: requests become sequences, outputs become answers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.answer import Answer, ChatFormat, Choice, CompletionFormat, Format
from backends.llamacpp.binding.devices import compute_backend
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.chat import ChatTemplate, TemplateError
from backends.llamacpp.engine import Engine, EngineClosed, Output
from backends.llamacpp.options import Options
from backends.llamacpp.requests import (
    ChatRequest,
    CompletionRequest,
    Defaults,
    DetokenizeRequest,
    RequestError,
    TokenizeRequest,
    answer_budget,
    chat_messages,
    check_unsupported,
    prompts,
    sampling_params,
    stops,
)
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull

log = logging.getLogger(__name__)

Tokens = NDArray[np.int32]
_OFF_LOOP_BYTES = 8192
"""Texts longer than this are tokenised in another thread, so that other streams go on."""
_RETRY_AFTER_S = 1


class Overloaded(Exception):
    """The waiting line is full; try again after `retry_after_s` seconds."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.retry_after_s = _RETRY_AFTER_S


class Unavailable(Exception):
    """The engine is stopping or dead."""


def load(path: Path, name: str, options: Options, num_threads: int, loop: asyncio.AbstractEventLoop) -> Serving:
    """Load a model and start its engine; outputs arrive on `loop`.

    Raises ModelError or TemplateError when the file, the options or the template cannot be used.
    """
    model = Model(path, options)
    if not model.can_generate:
        raise ModelError(f"{path} is not a model that generates text")
    template = _template(model, options)

    def deliver(outputs: list[Output]) -> None:
        loop.call_soon_threadsafe(_push, outputs)

    engine = Engine(
        model,
        options,
        num_threads=num_threads,
        num_threads_batch=options.n_threads_batch or num_threads,
        deliver=deliver,
    )
    engine.start()
    return Serving(name, engine, template)


def _push(outputs: list[Output]) -> None:
    for output in outputs:
        try:
            output.sequence.sink.push(output)
        except Exception:
            # One answer's bug must not cost the others of this step their tokens, nor leave its own client waiting.
            log.exception("an answer failed")
            output.sequence.sink.answer.fail("internal error; the engine's log has the details")


def _template(model: Model, options: Options) -> ChatTemplate | None:
    try:
        source = Path(options.chat_template).read_text("utf-8") if options.chat_template else model.chat_template()
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"chat_template: cannot read {options.chat_template}: {error}") from error
    if source is None:
        return None
    texts = {token: text for text, token in model.special_tokens.items()}
    return ChatTemplate(source, bos=texts.get(model.bos, ""), eos=texts.get(model.eos, ""))


def _defaults(model: Model) -> Defaults:
    """Sampling that the model's file recommends (`general.sampling.*`), else OpenAI's defaults."""

    def read(name: str, fallback: float) -> float:
        text = model.metadata(f"general.sampling.{name}")
        try:
            return fallback if text is None else float(text)
        except ValueError:
            raise ModelError(f"general.sampling.{name} in the model's file is no number: {text!r}") from None

    plain = Defaults()
    return Defaults(
        temperature=read("temp", plain.temperature),
        top_p=read("top_p", plain.top_p),
        top_k=int(read("top_k", plain.top_k)),
        min_p=read("min_p", plain.min_p),
    )


class Serving:
    """One model under one name."""

    def __init__(self, name: str, engine: Engine, template: ChatTemplate | None) -> None:
        self.name = name
        self.engine = engine
        self.created = int(time.time())
        self._model = engine.model
        self._template = template
        self._defaults = _defaults(engine.model)

    def close(self) -> None:
        """Stop the engine and free everything."""
        self.engine.close()
        self._model.close()

    async def chat(self, request: ChatRequest) -> Answer:
        """Start a chat answer. Raises RequestError, Overloaded or Unavailable."""
        self._check(request)
        prompt = await self._encode_chat(chat_messages(request))
        answer = self._answer(ChatFormat, "chatcmpl", request)
        self._start(answer, [(prompt, "", self._params(request, prompt))], stops(request))
        return answer

    async def complete(self, request: CompletionRequest) -> Answer:
        """Start a text completion of every prompt. Raises as `chat`."""
        self._check(request)
        starts = []
        for prompt in prompts(request):
            tokens = await self._encode_prompt(prompt, request)
            params = self._params(request, tokens)
            text = self._model.detokenize(tokens.tolist()) if request.echo and not isinstance(prompt, str) else prompt
            starts.append((tokens, str(text) if request.echo else "", params))
        answer = self._answer(CompletionFormat, "cmpl", request)
        self._start(answer, starts, stops(request))
        return answer

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Token ids of a text or of rendered messages. Raises RequestError."""
        self._check_model(request.model)
        if (request.prompt is None) == (request.messages is None):
            raise RequestError("give either prompt or messages", param="prompt")
        if request.prompt is not None:
            tokens = await self._encode_text(request.prompt, request.add_special_tokens)
        else:
            tokens = await self._encode_chat(chat_messages(request))
        found: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": self.engine.max_length,
            "tokens": tokens.tolist(),
        }
        if request.return_token_strs:
            found["token_strs"] = [
                self._model.token_text(token).decode("utf-8", "replace") for token in tokens.tolist()
            ]
        return found

    async def detokenize(self, request: DetokenizeRequest) -> dict[str, Any]:
        """The text of token ids. Raises RequestError."""
        self._check_model(request.model)
        self._check_tokens(request.tokens, "tokens")
        if len(request.tokens) > _OFF_LOOP_BYTES:
            return {"prompt": await asyncio.to_thread(self._model.detokenize, request.tokens)}
        return {"prompt": self._model.detokenize(request.tokens)}

    def health(self) -> dict[str, Any]:
        """What /health answers while the engine lives."""
        return {
            "status": "ok",
            "model": self.name,
            "backend": compute_backend(),
            "n_threads": self.engine.num_threads,
        }

    def describe(self) -> dict[str, Any]:
        """This model's entry in /v1/models."""
        model = self._model
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "forgegate",
            "max_model_len": self.engine.max_length,
            "capabilities": [*(["chat"] if self._template else []), "completions", "tokenize"],
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

    # ------------------------------------------------------------------ from request to sequences

    def _check(self, request: ChatRequest | CompletionRequest) -> None:
        self._check_model(request.model)
        check_unsupported(request)

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self.name:
            raise RequestError(
                f"unknown model {model!r}; this engine serves {self.name!r}",
                param="model",
                code="model_not_found",
                status=404,
            )

    async def _encode_chat(self, messages: list[dict[str, Any]]) -> Tokens:
        template = self._template
        if template is None:
            raise RequestError("this model has no chat template: use /v1/completions", param="messages")
        size = sum(len(message["content"]) for message in messages)
        try:
            if size > _OFF_LOOP_BYTES:
                return await asyncio.to_thread(template.encode, messages, self._model)
            return template.encode(messages, self._model)
        except TemplateError as error:
            raise RequestError(str(error), param="messages") from error

    async def _encode_prompt(self, prompt: str | list[int], request: CompletionRequest) -> Tokens:
        if isinstance(prompt, str):
            tokens = await self._encode_text(prompt, add_special=True)
        else:
            # Too long a list is refused before anything is done with it.
            answer_budget(request, len(prompt), self.engine.max_length)
            self._check_tokens(prompt, "prompt")
            tokens = np.array(prompt, dtype=np.int32)
        if not len(tokens):
            raise RequestError("prompt: an empty prompt has nothing to continue", param="prompt")
        return tokens

    async def _encode_text(self, text: str, add_special: bool) -> Tokens:
        if len(text) > _OFF_LOOP_BYTES:
            return await asyncio.to_thread(self._model.tokenize, text, add_special=add_special)
        return self._model.tokenize(text, add_special=add_special)

    def _check_tokens(self, tokens: list[int], param: str) -> None:
        wrong = next((token for token in tokens if token >= self._model.n_vocab), None)
        if wrong is not None:
            last = self._model.n_vocab - 1
            raise RequestError(f"{param}: no such token: {wrong} (the last one is {last})", param=param)

    def _params(self, request: ChatRequest | CompletionRequest, prompt: Tokens) -> SamplingParams:
        budget = answer_budget(request, len(prompt), self.engine.max_length)
        return sampling_params(request, max_tokens=budget, n_vocab=self._model.n_vocab, defaults=self._defaults)

    def _answer(
        self, kind: type[ChatFormat | CompletionFormat], prefix: str, request: ChatRequest | CompletionRequest
    ) -> Answer:
        identity = f"{prefix}-{uuid.uuid4().hex}"
        wire: Format = kind(identity, int(time.time()), self.name, self._model.token_text)
        return Answer(wire, self._model.piece, self.engine.cancel, stream=bool(request.stream))

    def _start(
        self, answer: Answer, starts: list[tuple[Tokens, str, SamplingParams]], stop_strings: tuple[str, ...]
    ) -> None:
        """Submit every choice, or none."""
        num_places = self.engine.scheduler.num_places
        if len(starts) > num_places:
            raise RequestError(f"prompt: {len(starts)} prompts, but the engine has {num_places} places", param="prompt")
        answer.choices = [
            Choice(answer, index, len(prompt), stop_strings, text) for index, (prompt, text, _) in enumerate(starts)
        ]
        try:
            for choice, (prompt, _, params) in zip(answer.choices, starts, strict=True):
                choice.sequence = self.engine.submit(prompt, params, choice)
        except QueueFull as error:
            answer.close()
            raise Overloaded(f"the engine is full: {error}") from error
        except EngineClosed as error:
            answer.close()
            raise Unavailable(str(error)) from error
