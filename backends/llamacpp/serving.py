"""A loaded model ready to answer: requests become sequences, outputs become answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.answer import Answer, Choice, TokenBytes, Wire
from backends.llamacpp.api import chat as chat_api
from backends.llamacpp.api import completions as completions_api
from backends.llamacpp.api.chat import ChatRequest
from backends.llamacpp.api.completions import CompletionRequest
from backends.llamacpp.api.fields import RequestError, Sampling
from backends.llamacpp.api.params import SEEDS, Defaults, answer_budget, sampling_params, stops
from backends.llamacpp.api.tokens import DetokenizeRequest, TokenizeRequest
from backends.llamacpp.binding.devices import compute_backend
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.chat import ChatTemplate, Prompt, TemplateError
from backends.llamacpp.engine import Deliver, Engine, EngineClosed, Output
from backends.llamacpp.grammar import Constraint, GrammarError, Grammars
from backends.llamacpp.message import PLAIN, Markup, MessageParser
from backends.llamacpp.options import Options
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull
from backends.llamacpp.structure import answer_grammar, is_thinking
from backends.llamacpp.tools import HERMES, Tool

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


def load(path: Path, name: str, options: Options, num_threads: int, deliver: Deliver) -> Serving:
    """Load a model and start its engine, whose outputs go to `deliver` and from there, on the event loop, to `hand_out`.

    Raises ModelError or TemplateError when the file, the options or the template cannot be used.
    """
    model = Model(path, options)
    if not model.can_generate:
        raise ModelError(f"{path} is not a model that generates text")
    template = _template(model, options)
    engine = Engine(
        model,
        options,
        num_threads=num_threads,
        num_threads_batch=options.n_threads_batch or num_threads,
        deliver=deliver,
    )
    engine.start()
    return Serving(name, engine, template)


def hand_out(outputs: list[Output]) -> None:
    """Give a step's outputs to the answers that wait for them. On the event loop."""
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
        self._grammars = Grammars(engine.model)
        self._defaults = _defaults(engine.model)

    def close(self) -> None:
        """Stop the engine and free everything."""
        self._grammars.close()
        self.engine.close()
        self._model.close()

    async def chat(self, request: ChatRequest, wire: Wire) -> Answer:
        """Start a chat answer that is sent as `wire` has it. Raises RequestError, Overloaded or Unavailable."""
        self._check_model(request.model)
        chat_api.check(request)
        tools = chat_api.tools_of(request)
        prompt = await self._encode_chat(request, tools)
        params = self._params(request, prompt.tokens)
        markup = self._markup(prompt.text, tools)
        grammar = self._grammar(request, markup, chat_api.callable_tools(request, tools))
        constraint = await self._constraint(grammar, request)
        answer = self._answer(wire, request, markup)
        self._start(answer, [_Start(prompt.tokens, params, markup, constraint)], request)
        return answer

    async def complete(self, request: CompletionRequest, wire: Wire) -> Answer:
        """Start a text completion of every prompt. Raises as `chat`."""
        self._check_model(request.model)
        completions_api.check(request)
        starts = []
        for prompt in completions_api.prompts(request):
            tokens = await self._encode_prompt(prompt, request)
            params = self._params(request, tokens)
            text = self._model.detokenize(tokens.tolist()) if request.echo and not isinstance(prompt, str) else prompt
            starts.append(_Start(tokens, params, prompt_text=str(text) if request.echo else ""))
        answer = self._answer(wire, request, PLAIN)
        self._start(answer, starts, request)
        return answer

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Token ids of a text or of rendered messages. Raises RequestError."""
        self._check_model(request.model)
        if (request.prompt is None) == (request.messages is None):
            raise RequestError("give either prompt or messages", param="prompt")
        if request.prompt is not None:
            tokens = await self._encode_text(request.prompt, request.add_special_tokens)
        else:
            asked = ChatRequest(
                messages=request.messages or [],
                tools=request.tools,
                chat_template_kwargs=request.chat_template_kwargs,
            )
            tokens = (await self._encode_chat(asked, chat_api.tools_of(asked))).tokens
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

    def token_text(self, token: int) -> bytes:
        """The bytes of a token, control tokens by their text."""
        return self._model.token_text(token)

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

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self.name:
            raise RequestError(
                f"unknown model {model!r}; this engine serves {self.name!r}",
                param="model",
                code="model_not_found",
                status=404,
            )

    async def _encode_chat(self, request: ChatRequest, tools: Sequence[Tool]) -> Prompt:
        template = self._template
        if template is None:
            raise RequestError("this model has no chat template: use /v1/completions", param="messages")
        messages = chat_api.template_messages(request.messages)
        context = _template_context(request, template)
        size = sum(len(message["content"]) for message in messages) + 1024 * len(tools)
        self._check_size(sum(len(message["content"].encode("utf-8", "replace")) for message in messages), request)
        try:
            if size > _OFF_LOOP_BYTES:
                return await asyncio.to_thread(template.encode, messages, self._model, tools, context)
            return template.encode(messages, self._model, tools, context)
        except TemplateError as error:
            raise RequestError(str(error), param="messages") from error

    def _markup(self, prompt: str, tools: Sequence[Tool]) -> Markup:
        template = self._template
        assert template is not None
        calls = (template.dialect or HERMES) if tools else None
        return Markup(template.think, is_thinking(prompt, template.think), calls)

    def _grammar(self, request: ChatRequest, markup: Markup, tools: Sequence[Tool]) -> str | None:
        try:
            return answer_grammar(
                markup,
                self._model.special_tokens,
                schema=chat_api.answer_schema(request),
                tools=tools,
                must_call=request.tool_choice not in (None, "none", "auto"),
                several=request.parallel_tool_calls is not False,
            )
        except GrammarError as error:
            raise _refused(error, request) from error

    async def _constraint(self, grammar: str | None, request: ChatRequest) -> Constraint | None:
        if grammar is None:
            return None
        try:
            return await self._grammars.constraint(grammar)
        except GrammarError as error:
            raise _refused(error, request) from error

    def _check_size(self, num_bytes: int, request: Sampling) -> None:
        """Refuse a text that cannot fit, before the time is spent on finding out how many tokens it has."""
        num_tokens = -(-num_bytes // self._model.longest_token_bytes)
        if num_tokens > self.engine.max_length:
            raise RequestError(
                f"this model's context is {self.engine.max_length} tokens; the prompt has at least {num_tokens}",
                param=request.prompt_field,
                code="context_length_exceeded",
            )

    async def _encode_prompt(self, prompt: str | list[int], request: CompletionRequest) -> Tokens:
        if isinstance(prompt, str):
            self._check_size(len(prompt.encode("utf-8", "replace")), request)
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

    def _params(self, request: Sampling, prompt: Tokens) -> SamplingParams:
        budget = answer_budget(request, len(prompt), self.engine.max_length)
        return sampling_params(request, max_tokens=budget, n_vocab=self._model.n_vocab, defaults=self._defaults)

    def _answer(self, wire: Wire, request: Sampling, markup: Markup) -> Answer:
        num_shown = request.n or 1
        return Answer(
            wire,
            self._piece(markup),
            self.engine.cancel,
            stream=bool(request.stream),
            num_shown=num_shown if num_shown < request.num_drawn else None,
            shows_logprobs=request.shows_logprobs,
        )

    def _piece(self, markup: Markup) -> TokenBytes:
        """The bytes of a token; those control tokens that mark parts of the answer show their text."""
        model = self._model
        tags = [*(markup.think or ()), *((markup.calls.texts) if markup.calls else ())]
        marks = {token for text, token in model.special_tokens.items() if any(text in tag for tag in tags)}
        if not marks:
            return model.piece
        return lambda token: model.token_text(token) if token in marks else model.piece(token)

    def _start(self, answer: Answer, starts: Sequence[_Start], request: Sampling) -> None:
        """Submit every choice, or none."""
        num_places, num_choices = self.engine.scheduler.num_places, len(starts) * request.num_drawn
        if num_choices > num_places:
            field = "n" if len(starts) == 1 else "prompt"
            raise RequestError(f"{field}: {num_choices} answers, but the engine has {num_places} places", param=field)
        stop_strings = stops(request)
        try:
            for start in starts:
                self._start_group(answer, start, stop_strings, request.num_drawn)
        except QueueFull as error:
            answer.close()
            raise Overloaded(f"the engine is full: {error}") from error
        except EngineClosed as error:
            answer.close()
            raise Unavailable(str(error)) from error

    def _start_group(self, answer: Answer, start: _Start, stop_strings: tuple[str, ...], num_choices: int) -> None:
        """Submit the choices of one prompt: the first leads, the others share what it computes of the prompt."""
        leader: Choice | None = None
        for number in range(num_choices):
            choice = Choice(
                answer,
                len(answer.choices),
                len(start.prompt),
                stop_strings,
                start.prompt_text,
                parser=None if start.markup.is_plain else MessageParser(start.markup),
                leader=leader,
            )
            answer.choices.append(choice)
            choice.sequence = self.engine.submit(
                start.prompt,
                replace(start.params, seed=(start.params.seed + number) % SEEDS),
                choice,
                constraint=start.constraint and start.constraint.copy(),
                leader=leader.sequence if leader else None,
            )
            leader = leader or choice


@dataclass(frozen=True, slots=True)
class _Start:
    """One prompt, ready to be answered."""

    prompt: Tokens
    params: SamplingParams
    markup: Markup = PLAIN
    constraint: Constraint | None = None
    prompt_text: str = ""


def _template_context(request: ChatRequest, template: ChatTemplate) -> dict[str, Any]:
    """The template's variables that the request sets. Raises RequestError for one that the template does not read."""
    context = dict(request.chat_template_kwargs or {})
    for name in context:
        if name not in template.variables or name in ("messages", "tools", "add_generation_prompt"):
            known = ", ".join(sorted(template.variables)) or "none"
            at = f"chat_template_kwargs.{name}"
            raise RequestError(f"{at}: this model's template reads no such variable (it reads: {known})", param=at)
    if request.reasoning_effort is not None:
        if "reasoning_effort" not in template.variables:
            raise RequestError(
                "reasoning_effort: this model knows no levels", param="reasoning_effort", code="unsupported_field"
            )
        context["reasoning_effort"] = request.reasoning_effort
    return context


def _refused(error: GrammarError, request: ChatRequest) -> RequestError:
    """What a client is told about a schema that cannot be used."""
    is_schema = bool(request.response_format and request.response_format.json_schema) and not request.tools
    field = "response_format.json_schema.schema" if is_schema else "tools" if request.tools else "response_format"
    at = f"{field}.{error.path}" if error.path else field
    return RequestError(f"{at}: cannot be followed: {error}", param=at, code="invalid_schema")
