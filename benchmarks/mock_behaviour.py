"""How the mock engine answers: options, one request's overrides, and the fate that is drawn for a request. Pure."""

import difflib
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any


class BehaviourError(ValueError):
    """An override that does not exist or has no sense; the message names it."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Every field can be overridden for one request: header `x-mock: ttft_ms=5, tokens=3`, or body field
    `"mock": {"ttft_ms": 5}` (which wins, and which a gateway passes on). Times are paced to the ms; 0 means at once.
    """

    ttft_ms: float = 20.0
    """From the request's last byte (or its slot) to the first chunk."""
    itl_ms: float = 20.0
    """Between chunks, on a schedule that does not drift."""
    tokens: int = 100
    """Tokens of an answer that is not ended by max_tokens."""
    tokens_per_chunk: int = 1
    """Tokens that share a chunk, as with speculative decoding."""
    jitter: float = 0.0
    """Each delay is multiplied by a uniform draw from 1 - jitter to 1 + jitter."""
    error_rate: float = 0.0
    """Share of requests answered with `error_status`."""
    error_status: int = 500
    error_event_after: int = -1
    """After so many chunks: an error event, then the connection closes. -1: never."""
    hang_rate: float = 0.0
    """Share of requests that get nothing more after `hang_after` chunks; 0 chunks: not even headers."""
    hang_after: int = 0
    disconnect_rate: float = 0.0
    """Share of requests whose connection is closed after `disconnect_after` chunks; 0 chunks: before the headers."""
    disconnect_after: int = 5
    truncate_after: int = -1
    """After so many chunks: `[DONE]` without finish_reason, as llama-cpp-python's server does when interrupted."""
    stall_ms: float = 0.0
    """How long the whole server stands still, once every `stall_every_ms`: nothing is answered meanwhile."""
    stall_every_ms: float = 10_000.0
    """Stalls end at multiples of this by CLOCK_MONOTONIC, so that who watches knows when they were."""

    def __post_init__(self) -> None:
        for name in ("error_rate", "hang_rate", "disconnect_rate", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise BehaviourError(f"{name} must be between 0 and 1, not {getattr(self, name):g}")
        for name in ("ttft_ms", "itl_ms", "tokens", "hang_after", "disconnect_after", "stall_ms"):
            if getattr(self, name) < 0:
                raise BehaviourError(f"{name} must not be negative")
        if self.stall_ms and self.stall_ms >= self.stall_every_ms:
            raise BehaviourError("stall_ms must be below stall_every_ms")
        if self.tokens_per_chunk < 1:
            raise BehaviourError("tokens_per_chunk must be at least 1")
        if not 400 <= self.error_status <= 599:
            raise BehaviourError(f"error_status must be between 400 and 599, not {self.error_status}")

    def overridden(self, overrides: Mapping[str, Any]) -> "Behaviour":
        """A copy with some fields replaced; raises BehaviourError for unknown names and wrong types."""
        known = {spec.name: spec.type for spec in fields(self)}
        values: dict[str, Any] = {}
        for name, value in overrides.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise BehaviourError(
                    f"mock: unknown option {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
                )
            try:
                values[name] = int(value) if known[name] is int else float(value)
            except (TypeError, ValueError) as exc:
                raise BehaviourError(f"mock: {name} must be a number, not {value!r}") from exc
        return replace(self, **values) if values else self

    def after_stall_s(self, at_s: float) -> float:
        """The first moment from `at_s` (seconds, CLOCK_MONOTONIC) on that lies in no stall."""
        period_s = self.stall_every_ms / 1e3
        left_s = period_s - at_s % period_s
        return at_s + left_s if left_s <= self.stall_ms / 1e3 else at_s

    @classmethod
    def parse_header(cls, text: str) -> dict[str, str]:
        """`a=1, b=2` as a mapping; raises BehaviourError."""
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise BehaviourError(f"x-mock: {text!r} is not of the form 'name=value, name=value'")
        return {name.strip(): value.strip() for name, _, value in pairs}


class Ending(StrEnum):
    """How an answer ends."""

    WHOLE = "whole"
    ERROR = "error"
    ERROR_EVENT = "error_event"
    HANG = "hang"
    DISCONNECT = "disconnect"
    TRUNCATE = "truncate"


@dataclass(frozen=True, slots=True)
class Fate:
    """What will happen to one request. `after` counts chunks."""

    ending: Ending
    after: int
    num_tokens: int
    finish_reason: str


def draw_fate(behaviour: Behaviour, wanted: "Wanted", rng: random.Random) -> Fate:
    """Decide once, when the request has come in."""
    num_tokens, finish_reason = wanted.length(behaviour.tokens)
    ending, after = _draw_ending(behaviour, rng)
    return Fate(ending, after, num_tokens, finish_reason)


def _draw_ending(behaviour: Behaviour, rng: random.Random) -> tuple[Ending, int]:
    draw = rng.random()
    if draw < behaviour.error_rate:
        return Ending.ERROR, 0
    if draw < behaviour.error_rate + behaviour.hang_rate:
        return Ending.HANG, behaviour.hang_after
    if draw < behaviour.error_rate + behaviour.hang_rate + behaviour.disconnect_rate:
        return Ending.DISCONNECT, behaviour.disconnect_after
    if behaviour.error_event_after >= 0:
        return Ending.ERROR_EVENT, behaviour.error_event_after
    if behaviour.truncate_after >= 0:
        return Ending.TRUNCATE, behaviour.truncate_after
    return Ending.WHOLE, 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the request says about its length."""

    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool

    def length(self, natural: int) -> tuple[int, str]:
        """Number of tokens and finish_reason of an answer that would by itself end after `natural` tokens."""
        num = natural if not self.ignore_eos or self.max_tokens is None else self.max_tokens
        num = max(num, self.min_tokens)
        if self.max_tokens is not None and self.max_tokens <= num:
            return self.max_tokens, "length"
        return num, "stop"
