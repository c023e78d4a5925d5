"""The background of a session: answers are asked for before they are needed, votes are brought to the gateway."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from backends.admin_client import AdminClient
from finetune.errors import RecipeUnusable, TrainError
from finetune.pages.journal import Entry
from finetune.pages.prompts import Prompt
from finetune.parity.served import Endpoint, EndpointRefused

RETRY_S = 2.0
_OF_THE_PROMPT = (400, 413, 422)
"""Refusals that another try does not change: too long for the model, a message that its template does not take."""


class Moved(TrainError):
    """A name stands for another version than when the session began."""

    exit_code = 2


class PromptRefused(TrainError):
    """One of the models does not answer this prompt, whenever it is asked."""


class Pair:
    """Two models of an endpoint. Raises RecipeUnusable where they are one, EndpointFailed."""

    def __init__(self, endpoints: Sequence[Endpoint], max_tokens: int) -> None:
        self._endpoints, self._max_tokens = endpoints, max_tokens
        self.models = tuple(one.model for one in endpoints)
        self.resolved = self._resolve()
        if self.resolved[0] == self.resolved[1]:
            raise RecipeUnusable(f"{' and '.join(self.models)} are the same, {self.resolved[0]}: name two versions")

    def ask(self, prompt: Prompt) -> tuple[str, str]:
        """Raises PromptRefused, Moved, EndpointFailed."""
        live, candidate = (self._answer(one, prompt) for one in self._endpoints)
        for model, before, now in zip(self.models, self.resolved, self._resolve(), strict=True):
            if before != now:
                raise Moved(
                    f"{model} is now {now}, and was {before} when the session began: name versions, not aliases"
                )
        return live, candidate

    def _answer(self, endpoint: Endpoint, prompt: Prompt) -> str:
        try:
            return endpoint.answer(prompt.messages, self._max_tokens).text
        except EndpointRefused as exc:
            if exc.status in _OF_THE_PROMPT:
                raise PromptRefused(str(exc)) from exc
            raise

    def _resolve(self) -> tuple[str, ...]:
        return tuple(one.describe().root or one.model for one in self._endpoints)


class Votes(Protocol):
    """Where votes are kept beside the journal."""

    def add(self, vote: Entry) -> None:
        """Raises AdminError."""


class GatewayVotes:
    """The gateway's store."""

    def __init__(self, client: AdminClient, session: str, resolved: Sequence[str]) -> None:
        self._client, self._session, self._resolved = client, session, resolved

    def add(self, vote: Entry) -> None:
        live, candidate = self._resolved
        self._client.add_vote(self._session, candidate, live, vote["prompt"], vote["winner"], vote["who"])


class Work(Protocol):
    """What is to be done in the background. `step` is called by one thread of its own."""

    def step(self) -> bool:
        """Whether something was done, so that there may be more to do at once."""


class Background:
    """Runs a work in a thread while the block runs; `wake` says that there may be something to do.

    Nobody waits for the step that it is at: an answer may take minutes. What comes of it after the block is lost.
    """

    def __init__(self, work: Work, on_broken: Callable[[Exception], None]) -> None:
        self._work, self._on_broken = work, on_broken
        self._something = threading.Event()
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wake(self) -> None:
        self._something.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ended = True
        self.wake()

    def _run(self) -> None:
        try:
            while not self._is_ended:
                self._something.clear()
                if not self._work.step():
                    self._something.wait(RETRY_S)
        except Exception as exc:  # noqa: BLE001 - whoever waits for it is told
            if not self._is_ended:
                self._on_broken(exc)
