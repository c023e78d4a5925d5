"""What a request asks of sampling: budgets, stop strings, parameters with the model's defaults filled in."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.llamacpp.api.fields import RequestError, Sampling
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.sampling import SamplingParams

SEEDS = 0xFFFFFFFF
"""32 bits, of which llama.cpp takes the last value for "random"; a request without a seed gets its own."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request gets that leaves a field out; a model may carry its own in `general.sampling.*`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


def defaults_of(metadata: Callable[[str], str | None]) -> Defaults:
    """Sampling that the model's file recommends (`general.sampling.*`), else OpenAI's defaults. Raises ModelError."""

    def read(name: str, fallback: float) -> float:
        text = metadata(f"general.sampling.{name}")
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


def stops(request: Sampling) -> tuple[str, ...]:
    """The stop strings. Raises RequestError for an empty one."""
    given = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(not stop for stop in given):
        raise RequestError("stop: an empty stop string would end every answer at once", param="stop")
    return tuple(given)


def answer_budget(request: Sampling, num_prompt: int, max_length: int) -> int:
    """Tokens that the answer may have. Raises RequestError `context_length_exceeded` with both numbers."""
    room = max_length - num_prompt
    wanted: int | None = getattr(request, request.budget_field)
    # An answer may be longer than one token only if there is room for it; a prompt alone may fill the context.
    if room < 0 or (room == 0 and wanted != 0) or (wanted is not None and wanted > room):
        asked = "" if wanted is None else f" and an answer of {wanted} tokens was asked for"
        fits = f"; at most {room} fit" if wanted is not None and room > 0 else ""
        raise RequestError(
            f"this model's context is {max_length} tokens; the prompt has {num_prompt}{asked}{fits}",
            param=request.budget_field if room > 0 else request.prompt_field,
            code="context_length_exceeded",
        )
    if wanted is None:
        wanted = request.default_budget(room)
    if (request.min_tokens or 0) > wanted:
        raise RequestError(f"min_tokens: more than {request.budget_field} ({wanted})", param="min_tokens")
    return wanted


def sampling_params(request: Sampling, *, max_tokens: int, n_vocab: int, defaults: Defaults) -> SamplingParams:
    """The request's sampling, defaults filled in. Raises RequestError."""

    def pick(name: str) -> Any:
        value = getattr(request, name)
        return getattr(defaults, name) if value is None else value

    for token in request.stop_token_ids or ():
        if token >= n_vocab:
            raise RequestError(f"stop_token_ids: no such token: {token}", param="stop_token_ids")
    logprobs, prompt_logprobs = request.logprobs_wanted
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        temperature=pick("temperature"),
        top_k=max(pick("top_k"), 0),
        top_p=pick("top_p"),
        min_p=pick("min_p"),
        typical_p=1.0 if request.typical_p is None else request.typical_p,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        seed=(random.getrandbits(32) if request.seed is None else request.seed) % SEEDS,
        logit_bias=_logit_bias(request.logit_bias, n_vocab),
        stop_token_ids=frozenset(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _logit_bias(bias: dict[str, float] | None, n_vocab: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for key, value in (bias or {}).items():
        if not key.isascii() or not key.isdigit() or len(key) > 10 or int(key) >= n_vocab:
            raise RequestError(f"logit_bias: no such token: {key[:20]!r} (0 to {n_vocab - 1})", param="logit_bias")
        # -100 means never; finite, because a request may bias every token and one has to be drawn.
        pairs.append((int(key), -1e4 if value <= -100 else value))
    return tuple(pairs)
