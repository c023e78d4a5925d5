"""What a request asks of sampling, and the part of it that is arithmetic on logits. Pure numpy.

The order: logit bias, repetition, frequency and presence penalties, the minimum length,
then (backends.llamacpp.binding.sampler) temperature, top_k, typical, top_p, min_p and the draw. Log-probabilities are of
the model's own distribution, before any of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
Ids = NDArray[np.int32]
NO_IDS: Final[Ids] = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One request's sampling, checked and complete. Token budgets are in tokens."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    """0: the most likely token."""
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    """Over prompt and answer, as in transformers."""
    frequency_penalty: float = 0.0
    """Over the answer, times the count, as in OpenAI's API."""
    presence_penalty: float = 0.0
    """Over the answer, once, as in OpenAI's API."""
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    """Never end by an end-of-generation token: they are not drawn at all."""
    logprobs: int | None = None
    """Alternatives reported per answer token (0: the token's own); None: no log-probabilities."""
    prompt_logprobs: int | None = None
    """The same for every prompt token; switches prefix reuse off."""

    @property
    def is_greedy(self) -> bool:
        # Dividing by less overflows float32 logits; vLLM draws the line at the same place.
        return self.temperature < 1e-5

    @property
    def changes_logits(self) -> bool:
        """Whether a LogitsAdjuster has anything to do."""
        return bool(
            self.logit_bias
            or self.ignore_eos
            or self.min_tokens
            or self.repetition_penalty != 1.0
            or self.frequency_penalty
            or self.presence_penalty
        )


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of one token and of the most likely alternatives, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class LogitsAdjuster:
    """Changes one request's row of logits in place before a token is drawn from it."""

    def __init__(self, params: SamplingParams, prompt: Ids, end_of_generation: Ids) -> None:
        self._params = params
        self._bias_ids = np.array([token for token, _ in params.logit_bias], dtype=np.int32)
        self._bias = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)
        stops = np.array(sorted(params.stop_token_ids), dtype=np.int32)
        self._never = end_of_generation if params.ignore_eos else NO_IDS
        self._not_yet = np.concatenate([end_of_generation, stops])
        self._counts: dict[int, int] = {}
        self._repeated = set(prompt.tolist()) if params.repetition_penalty != 1.0 else set()

    def accept(self, token: int) -> None:
        """Note a drawn token for the penalties."""
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._params.repetition_penalty != 1.0:
            self._repeated.add(token)

    def apply(self, row: Row, num_generated: int) -> None:
        """Adjust `row`, shape [n_vocab], in place; `num_generated` tokens of the answer exist already."""
        params = self._params
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias
        if self._repeated:
            ids = np.fromiter(self._repeated, dtype=np.int32, count=len(self._repeated))
            values = row[ids]
            row[ids] = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        if self._counts and (params.frequency_penalty or params.presence_penalty):
            ids = np.fromiter(self._counts.keys(), dtype=np.int32, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
            row[ids] -= params.frequency_penalty * counts + params.presence_penalty
        if len(self._never):
            row[self._never] = -np.inf
        if num_generated < params.min_tokens:
            row[self._not_yet] = -np.inf


def forbid(row: Row, allowed: NDArray[np.bool_]) -> None:
    """Leave only `allowed` tokens, shape [n_vocab], in a row of logits.

    Where nothing else is left (end-of-generation tokens were ruled out, and only they may follow) the grammar wins.
    """
    best = row[allowed].max(initial=-np.inf)
    if best == -np.inf:
        row[allowed] = 0.0
    row[~allowed] = -np.inf


def log_softmax(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities of rows of logits, shape [n, n_vocab]."""
    shifted = rows - rows.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted - log_sum, dtype=np.float32)


def log_likelihoods(rows: NDArray[np.float32], tokens: Ids) -> NDArray[np.float32]:
    """The log-probability of one token in each row of logits, shapes [n, n_vocab] and [n]; the same numbers as `log_softmax`."""
    most = rows.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(rows - most).sum(axis=-1))
    return np.asarray(rows[np.arange(len(tokens)), tokens] - most[:, 0] - log_sum, dtype=np.float32)


def scored(rows: NDArray[np.float32], tokens: Ids, num_top: int) -> list[TokenLogprobs]:
    """One token's log-probability from each row of logits, with the `num_top` most likely ones."""
    if num_top:
        return [token_logprobs(row, int(token), num_top) for row, token in zip(log_softmax(rows), tokens, strict=True)]
    pairs = zip(tokens.tolist(), log_likelihoods(rows, tokens).tolist(), strict=True)
    return [TokenLogprobs(token, logprob, ()) for token, logprob in pairs]


def token_logprobs(logprobs: Row, token: int, num_top: int) -> TokenLogprobs:
    """Pick `token` and the `num_top` most likely tokens out of one row of log-probabilities, shape [n_vocab]."""
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        count = min(num_top, len(logprobs))
        best = np.argpartition(logprobs, -count)[-count:]
        # Ties are listed by token id, so that the answer does not depend on the partition's order.
        best = best[np.lexsort((best, -logprobs[best]))]
        top = tuple((int(index), float(logprobs[index])) for index in best)
    return TokenLogprobs(int(token), float(logprobs[token]), top)
