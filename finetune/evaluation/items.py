"""What is asked and held against what: items of a task, and what a model said to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["chat", "generate", "choose", "given"]
"""By the chat API; a text continued; the log-probabilities of choices after a text; that of the expected answer."""
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a task."""

    id: str
    cluster: str
    """The fact or template that it is one wording of; its own id where it stands alone."""
    expected: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    kind: Kind = "chat"
    prompt: str = ""
    """In place of messages, for `generate` and `choose`."""
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """Continuations of the prompt, for `choose`."""
    right: int = 0
    """Which of the choices is expected."""
    lengths: tuple[int, ...] = ()
    """Characters of each choice, by which acc_norm divides."""

    @property
    def question(self) -> str:
        """The last thing that the user says."""
        said = [str(message.get("content") or "") for message in self.messages if message.get("role") == "user"]
        return said[-1] if said else self.prompt

    def request(self, max_tokens: int, seed: int) -> dict[str, Any]:
        """All that decides the answer, but the model: greedy."""
        tools = {"tools": list(self.tools)} if self.tools else {}
        if self.kind == "choose":
            return {"prompt": self.prompt, "choices": list(self.choices)}
        if self.kind == "given":
            return {"messages": list(self.messages), **tools, "answer": self.expected}
        asked: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0, "seed": seed}
        if self.kind == "generate":
            return {**asked, "prompt": self.prompt, "stop": list(self.stop)}
        return {**asked, "messages": list(self.messages), **tools}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and how long it took."""

    text: str
    """With tool calls as `<tool_call>` blocks after what is said."""
    finish: str
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    ttft_s: float | None = None
    latency_s: float | None = None
    scores: tuple[float, ...] = ()
    """Log-probability of each choice, for `choose`; of all of the expected answer, for `given`."""

    @property
    def tpot_s(self) -> float | None:
        """Seconds for each token after the first; None where that cannot be told."""
        if self.ttft_s is None or self.latency_s is None or not self.num_tokens or self.num_tokens < 2:
            return None
        return (self.latency_s - self.ttft_s) / (self.num_tokens - 1)


Scores = Mapping[str, float]
"""By metric, each in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Task:
    """A named list of items with one way to score their answers. `draw` gives at most so many, the first n always the same."""

    name: str
    metric: str
    """The metric that is compared; `score` may give others beside it."""
    draw: Callable[[int], Sequence[Item]]
    score: Callable[[Item, Answer], Scores]
    max_tokens: int
    identity: Mapping[str, Any]
    """JSON of all that decides a score, for the suite's digest."""
    is_closed: bool = False
    """Whether the clusters of its items are all that there are, and no sample of more."""
