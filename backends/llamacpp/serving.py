"""A model that was started to generate text: requests become sequences, outputs become answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import LITERAL_SPECIAL_TEXT
from backends.llamacpp.adapter_file import Requirements
from backends.llamacpp.adapters import (
    AdapterMissing,
    AdapterTable,
    LoadedAdapter,
    NameTaken,
    NoSlot,
    UnloadWithdrawn,
)
from backends.llamacpp.answer import Answer, Choice, TokenBytes, Wire
from backends.llamacpp.api import chat as chat_api
from backends.llamacpp.api import completions as completions_api
from backends.llamacpp.api.adapters import LoadRequest, UnloadRequest
from backends.llamacpp.api.chat import ChatRequest
from backends.llamacpp.api.completions import CompletionRequest
from backends.llamacpp.api.fields import RequestError, Sampling
from backends.llamacpp.api.params import SEEDS, answer_budget, defaults_of, sampling_params, stops
from backends.llamacpp.api.tokens import TokenizeRequest
from backends.llamacpp.binding.errors import AdapterError
from backends.llamacpp.chat import ChatTemplate, Prompt, TemplateError
from backends.llamacpp.engine import Engine, EngineClosed, Output
from backends.llamacpp.grammar import Constraint, GrammarError, GrammarQueueFull, Grammars
from backends.llamacpp.message import PLAIN, Markup, MessageParser
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull
from backends.llamacpp.sequence import Sequence as Request
from backends.llamacpp.served import Overloaded, ServedModel, Tokens, Unavailable, off_loop
from backends.llamacpp.structure import AnswerForm, is_thinking
from backends.llamacpp.tools import HERMES, Tool

log = logging.getLogger(__name__)

_CHATS = ("chat", "responses", "messages")
"""APIs that need a chat template."""
_FEATURES = ("json_schema", "tools")
"""Of chat: answers of a form."""


class Serving(ServedModel):
    """One model under one name."""

    def __init__(self, name: str, engine: Engine, template: ChatTemplate | None) -> None:
        super().__init__(name, engine)
        self.engine = engine
        self.template = template
        apis = (*(_CHATS if template else ()), "completions", "tokenize")
        self.capabilities = (*apis, *(_FEATURES if template else ()), LITERAL_SPECIAL_TEXT)
        self._grammars = Grammars(engine.model)
        required = Requirements(engine.model.metadata("forgegate.source_digest"), engine.is_batch_invariant)
        self.adapters = AdapterTable(engine, engine.max_adapters, required)
        self.defaults = defaults_of(engine.model.metadata)
        """Sampling for what a request leaves out."""

    def close(self) -> None:
        """Stop the engine and free everything; the model only where no grammar is being compiled, which reads it."""
        is_model_free = self._grammars.close()
        self.engine.close()
        if is_model_free:
            self._model.close()

    def hand_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            try:
                output.sequence.sink.push(output)
            except Exception:
                # One answer's bug must not cost the others of this step their tokens, nor leave its own client waiting.
                log.exception("an answer failed")
                output.sequence.sink.answer.fail("internal error; the engine's log has the details")

    def purpose(self) -> str:
        reuse = "on" if self.engine.reuses_prefixes else "off"
        return f"to generate text, with {self.engine.context.num_cells} KV cells, prefix reuse {reuse}"

    async def chat(self, request: ChatRequest, wire: Wire, *, is_long: bool) -> Answer:
        """Start a chat answer that is sent as `wire` has it. Raises RequestError, Overloaded or Unavailable.

        `is_long`: the request takes so long to read that other streams would wait.
        """
        adapter = self._adapter(request.model)
        chat_api.check(request)
        prompt, tools = await off_loop(is_long, partial(self._encode_chat, request))
        params = self._params(request, prompt.tokens)
        markup = self._markup(prompt.text, tools)
        constraint = await self._constraint(request, markup, chat_api.callable_tools(request, tools))
        answer = self._answer(wire, request, markup)
        self._start(answer, [_Start(prompt.tokens, params, markup, constraint)], request, adapter)
        return answer

    def count(self, request: ChatRequest) -> int:
        """The tokens of the prompt that a chat answer would have. Raises RequestError. Any thread."""
        self._check_model(request.model)
        chat_api.check(request)
        prompt, tools = self._encode_chat(request)
        chat_api.callable_tools(request, tools)
        return len(prompt.tokens)

    def chat_template(self, param: str = "messages") -> ChatTemplate:
        """The model's. Raises RequestError for the field `param` where it has none."""
        if self.template is None:
            raise RequestError("this model has no chat template: use /v1/completions", param=param)
        return self.template

    async def complete(self, request: CompletionRequest, wire: Wire, *, is_long: bool) -> Answer:
        """Start a text completion of every prompt. Raises as `chat`."""
        adapter = self._adapter(request.model)
        completions_api.check(request)
        starts = await off_loop(is_long, partial(self._read_prompts, request))
        answer = self._answer(wire, request, PLAIN)
        self._start(answer, starts, request, adapter)
        return answer

    def names(self) -> list[str]:
        return [self.name, *(adapter.name for adapter in self.adapters.resident)]

    def models(self) -> list[dict[str, Any]]:
        base = self.describe() | {"parent": None, "max_adapters": self.adapters.num_slots}
        counts = self.engine.residents.num_requests()
        return [base, *(self._describe(adapter, counts.get(adapter.name, 0)) for adapter in self.adapters.held)]

    def answers_as(self, model: str | None) -> str:
        """The name of whoever answers a request for `model`."""
        return model if model is not None and self.adapters.find(model) else self.name

    async def load_adapter(self, request: LoadRequest) -> None:
        """Raises RequestError or Unavailable."""
        name = request.lora_name
        if name == self.name:
            raise RequestError(f"lora_name: {name!r} is the base model's name", param="lora_name")
        try:
            await self.adapters.load(name, Path(request.lora_path))
        except AdapterError as error:
            raise RequestError(str(error), param="lora_path") from error
        except NameTaken as error:
            raise RequestError(str(error), param="lora_name") from error
        except NoSlot as error:
            raise RequestError(str(error), param="lora_name", code="no_adapter_slot", status=409) from error
        except EngineClosed as error:
            raise Unavailable(str(error)) from error

    async def unload_adapter(self, request: UnloadRequest) -> None:
        """Return when it is freed; cancelled before, it stays. Raises RequestError or Unavailable."""
        try:
            await self.adapters.unload(request.lora_name)
        except AdapterMissing as error:
            raise RequestError(str(error), param="lora_name", code="adapter_not_found", status=404) from error
        except UnloadWithdrawn as error:
            raise RequestError(str(error), param="lora_name", code="unload_withdrawn", status=409) from error
        except EngineClosed as error:
            raise Unavailable(str(error)) from error

    def _describe(self, adapter: LoadedAdapter, num_running: int) -> dict[str, Any]:
        return {
            "id": adapter.name,
            "object": "model",
            "created": adapter.created,
            "owned_by": "forgegate",
            "parent": self.name,
            "root": str(adapter.file.path),
            "max_model_len": self.engine.max_length,
            "capabilities": list(self.capabilities),
            "num_running": num_running,
            "is_leaving": self.adapters.is_leaving(adapter.name),
        }

    def _adapter(self, model: str | None) -> LoadedAdapter | None:
        """Who answers, None: the base model. Raises RequestError."""
        self._check_model(model)
        return None if model is None else self.adapters.find(model)

    # ------------------------------------------------------------------ from request to sequences

    def _read_prompts(self, request: CompletionRequest) -> list[_Start]:
        starts = []
        for prompt in completions_api.prompts(request, self.engine.max_length):
            tokens = self._encode_prompt(prompt, request)
            params = self._params(request, tokens)
            text = self._model.detokenize(tokens.tolist()) if request.echo and not isinstance(prompt, str) else prompt
            starts.append(_Start(tokens, params, prompt_text=str(text) if request.echo else ""))
        return starts

    def _encode_messages(self, request: TokenizeRequest) -> Tokens:
        asked = ChatRequest(
            messages=request.messages or [], tools=request.tools, chat_template_kwargs=request.chat_template_kwargs
        )
        prompt, _ = self._encode_chat(asked)
        return prompt.tokens

    def _encode_chat(self, request: ChatRequest) -> tuple[Prompt, tuple[Tool, ...]]:
        """The prompt, and the tools that it tells of."""
        # A template writes a token at least for each message.
        self._check_length(len(request.messages), request)
        tools = chat_api.tools_of(request)
        template = self.chat_template()
        messages = chat_api.template_messages(request.messages)
        context = chat_api.template_context(request, template)
        self._check_size(sum(len(message["content"].encode("utf-8", "replace")) for message in messages), request)

        def check(rendered: str) -> None:
            self._check_size(len(rendered.encode("utf-8", "replace")), request)

        try:
            return template.encode(messages, self._model, tools, context, check), tools
        except TemplateError as error:
            raise RequestError(str(error), param="messages") from error

    def _markup(self, prompt: str, tools: Sequence[Tool]) -> Markup:
        template = self.chat_template()
        calls = (template.dialect or HERMES) if tools else None
        return Markup(template.think, is_thinking(prompt, template.think), calls)

    async def _constraint(self, request: ChatRequest, markup: Markup, tools: Sequence[Tool]) -> Constraint | None:
        form = AnswerForm(
            markup,
            chat_api.answer_schema(request),
            tools,
            must_call=request.tool_choice not in (None, "none", "auto"),
            several=request.parallel_tool_calls is not False,
        )
        if form.is_free:
            return None
        try:
            return await self._grammars.constraint(form.key(), lambda: form.grammar(self._model.special_tokens))
        except GrammarError as error:
            raise chat_api.refused(error, request) from error
        except GrammarQueueFull as error:
            raise Overloaded(f"the engine is full: {error}") from error

    def _check_size(self, num_bytes: int, request: Sampling) -> None:
        """Refuse a text that cannot fit, before the time is spent on finding out how many tokens it has."""
        self._check_length(-(-num_bytes // self._model.longest_token_bytes), request)

    def _check_length(self, num_tokens: int, request: Sampling) -> None:
        if num_tokens > self.engine.max_length:
            raise RequestError(
                f"this model's context is {self.engine.max_length} tokens; the prompt has at least {num_tokens}",
                param=request.prompt_field,
                code="context_length_exceeded",
            )

    def _encode_prompt(self, prompt: str | list[int], request: CompletionRequest) -> Tokens:
        if isinstance(prompt, str):
            self._check_size(len(prompt.encode("utf-8", "replace")), request)
            tokens = self._model.tokenize(prompt, add_special=True)
        else:
            self._check_tokens(prompt, "prompt")
            tokens = np.array(prompt, dtype=np.int32)
        if not len(tokens):
            raise RequestError("prompt: an empty prompt has nothing to continue", param="prompt")
        return tokens

    def _params(self, request: Sampling, prompt: Tokens) -> SamplingParams:
        budget = answer_budget(request, len(prompt), self.engine.max_length)
        return sampling_params(request, max_tokens=budget, n_vocab=self._model.n_vocab, defaults=self.defaults)

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

    def _start(
        self, answer: Answer, starts: Sequence[_Start], request: Sampling, adapter: LoadedAdapter | None
    ) -> None:
        """Submit every choice, or none."""
        try:
            self.adapters.check(adapter)
        except AdapterMissing as error:
            raise RequestError(str(error), param="model", code="model_not_found", status=404) from error
        num_places, num_choices = self.engine.scheduler.num_places, len(starts) * request.num_drawn
        if num_choices > num_places:
            field = "n" if len(starts) == 1 else "prompt"
            raise RequestError(f"{field}: {num_choices} answers, but the engine has {num_places} places", param=field)
        stop_strings = stops(request)
        groups = (self._group(answer, start, stop_strings, request.num_drawn, adapter) for start in starts)
        try:
            self.engine.submit(*chain.from_iterable(groups))
        except QueueFull as error:
            answer.close()
            raise Overloaded(f"the engine is full: {error}") from error
        except EngineClosed as error:
            answer.close()
            raise Unavailable(str(error)) from error

    def _group(
        self,
        answer: Answer,
        start: _Start,
        stop_strings: tuple[str, ...],
        num_choices: int,
        adapter: LoadedAdapter | None,
    ) -> Iterator[Request]:
        """The choices of one prompt: the first leads, the others share what it computes of the prompt."""
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
            choice.sequence = self.engine.request(
                start.prompt,
                replace(start.params, seed=(start.params.seed + number) % SEEDS),
                choice,
                constraint=start.constraint and start.constraint.copy(),
                leader=leader.sequence if leader else None,
                adapter=adapter,
            )
            leader = leader or choice
            yield choice.sequence


@dataclass(frozen=True, slots=True)
class _Start:
    """One prompt, ready to be answered."""

    prompt: Tokens
    params: SamplingParams
    markup: Markup = PLAIN
    constraint: Constraint | None = None
    prompt_text: str = ""
