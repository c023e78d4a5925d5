"""One request on its way through the engine: its tokens, how far they are computed, and why it ended."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.sampling import SamplingParams

Tokens = NDArray[np.int32]


class Constraint(Protocol):
    """A grammar that an answer must follow, and how far it has come in it (backends.llamacpp.grammar)."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        ...

    @property
    def failure(self) -> str:
        """Why the grammar cannot go on; empty while it can."""
        ...

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        ...

    def allowed(self) -> NDArray[np.bool_]:
        """What may come next, shape [n_vocab]."""
        ...

    def accept(self, token: int) -> None:
        """Go on with `token`."""
        ...

    def take_forced(self, limit: int) -> list[int]:
        """Go on as far as only one text is possible, by at most `limit` tokens; returns these."""
        ...


class Finish(Enum):
    """Why a sequence ended; the first two are OpenAI's words for `finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt and answer in one buffer.

    tokens    [ prompt ........ | answer ...... | room ]
               0                 num_prompt      num_tokens
               <---- num_computed in the KV cache --->       a decoding sequence has exactly one token that is not

    A preempted sequence keeps its answer and its random state; only `num_computed` falls back to 0.
    """

    request_id: int
    params: SamplingParams
    tokens: Tokens
    num_prompt: int
    num_tokens: int
    sink: Any
    """Whoever waits for this sequence's tokens; the engine hands it back with every output."""
    arrived_s: float = 0.0
    adapter: Hashable = None
    """Whose answer this is: steps, prefixes and turns are of one adapter each; None: the base model."""
    sequence_id: int = -1
    """Its id in the KV cache while it runs, else -1."""
    num_computed: int = 0
    num_reused: int = 0
    """Prompt tokens that were found in the cache at its first admission."""
    was_admitted: bool = False
    num_scored: int = 0
    """Prompt tokens whose log-probabilities were handed out."""
    was_prepared: bool = False
    constraint: Constraint | None = None
    """The grammar that the answer must follow."""
    leader: Sequence | None = None
    """Whose prompt this one shares: it is computed once, and its cells are taken over."""
    followers: list[Sequence] = field(default_factory=list)
    """Those that wait for this one's prompt."""
    sampler: Any = None
    adjuster: Any = None
    last_token_s: float = 0.0

    @classmethod
    def of(
        cls, request_id: int, prompt: Tokens, params: SamplingParams, sink: Any = None, arrived_s: float = 0.0
    ) -> Sequence:
        """A new sequence with room for the whole answer."""
        tokens = np.empty(len(prompt) + params.max_tokens, dtype=np.int32)
        tokens[: len(prompt)] = prompt
        return cls(request_id, params, tokens, len(prompt), len(prompt), sink, arrived_s)

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.num_prompt

    @property
    def num_pending(self) -> int:
        """Tokens known but not in the KV cache yet."""
        return self.num_tokens - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether the next step is one token: the last one drawn."""
        return self.num_generated > 0 and self.num_pending == 1

    @property
    def can_reuse_prefix(self) -> bool:
        """A request for the log-probabilities of its prompt must compute all of it."""
        return self.params.prompt_logprobs is None

    @property
    def room(self) -> int:
        """Tokens that the answer may still get."""
        return self.params.max_tokens - self.num_generated

    def is_sibling_of(self, other: Sequence) -> bool:
        """Whether both answer the same prompt of one request."""
        return (self.leader or self) is (other.leader or other)

    def append(self, token: int) -> None:
        self.tokens[self.num_tokens] = token
        self.num_tokens += 1
