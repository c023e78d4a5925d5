"""What an endpoint says: how it renders messages, log-probabilities of given tokens, greedy answers. Over HTTP, as a client."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from backends.adapter.percall import parts
from finetune.errors import RecipeUnusable, TrainError
from finetune.running import KEY, TOKEN

TIMEOUT = httpx.Timeout(10.0, read=600.0)
NUM_TRIES = 8
MAX_WAIT_S = 10.0
TEXTS_PER_CALL = 32
_BUSY = (429, 503)
_NOT_OURS = (401, 403)
_UNKNOWN = (404, *_NOT_OURS)
_NOT_DONE = 501
_NO_SUCH_PATH = (404, 405, _NOT_DONE)
_OURS = "forgegate"
_ADMINS_CALL = "/v1/unload_lora_adapter"
_ADMINS_PAGE, _ADMINS_TITLE = "/openapi.json", "forgegate admin API"
"""What the admin API shows to anyone; an endpoint has no such page, or one with another title."""
_VERSION = re.compile(r".+@[0-9a-f]+")
NO_LOG = "x-forgegate-no-log"
"""What is asked here is no conversation of a user: a gateway that keeps those for training must not keep it."""


class EndpointFailed(TrainError):
    """The endpoint cannot be reached, or answered with an error."""


class EndpointRefused(EndpointFailed):
    """It does not do what is asked, whoever asks: `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Model:
    """As /v1/models lists it."""

    name: str
    parent: str
    """The base that the adapter is on; empty where the model is none itself."""
    root: str
    """The version that answers, `demo@0123456789ab` for a base; empty where it does not say."""
    capabilities: tuple[str, ...]
    is_literal: bool
    """Whether a special token's text in a message stays text."""
    max_context: int | None
    """Tokens of a prompt and its answer; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer."""

    text: str
    has_ended: bool
    """By itself, not by its budget."""
    is_plain: bool
    """Whether all of it is in `text`: no tool calls, no reasoning apart."""
    num_prompt_tokens: int | None


class Endpoint:
    """One model of an OpenAI-compatible endpoint. Methods raise EndpointFailed, as does the constructor for what is no address."""

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model
        self._sleep = sleep
        self._has_key = bool(key)
        headers = {NO_LOG: "1", **({"authorization": f"Bearer {key}"} if key else {})}
        try:
            self._client = httpx.Client(
                base_url=self.url, headers=headers, timeout=TIMEOUT, transport=transport, trust_env=False
            )
        except httpx.InvalidURL as exc:
            raise EndpointFailed(f"{self.url} is no address: {exc}") from exc

    def describe(self, name: str = "") -> Model:
        """Raises RecipeUnusable where there is no such model, or not for this key."""
        asked = name or self.model
        try:
            told = self._call("GET", f"/v1/models/{quote(asked, safe='@')}")
        except EndpointRefused as exc:
            told = self._listed(asked) if exc.status in _NO_SUCH_PATH else {}
            if not told and exc.status in _UNKNOWN:
                raise RecipeUnusable(self._unknown(asked, exc)) from exc
            if not told:
                raise
        with self._understood("/v1/models"):
            return Model(
                name=asked, parent=str(told.get("parent") or ""), root=str(told.get("root") or ""),
                capabilities=tuple(told.get("capabilities") or ()), is_literal=told.get("literal_special_text") is True,
                max_context=int(told.get("context_length") or told.get("max_model_len") or 0) or None,
            )  # fmt: skip

    def _listed(self, name: str) -> dict[str, Any]:
        """As the list has it, which is all that vLLM has: a context for bases only, in place of a version the path of the files.
        Empty where forgegate answers, whose list has no candidates. Raises RecipeUnusable where another has no such model."""
        try:
            content = self._call("GET", "/v1/models")
        except EndpointRefused:
            return {}
        with self._understood("/v1/models"):
            models = {str(one["id"]): dict(one) for one in content["data"]}
            if any(one.get("owned_by") == _OURS for one in models.values()):
                return {}
        if name not in models:
            raise RecipeUnusable(f"{self.url} serves no model {name!r}; it has {', '.join(models) or 'none'}")
        found = models[name]
        parent = models.get(str(found.get("parent")), {})
        return {**found, "root": "", "max_model_len": found.get("max_model_len") or parent.get("max_model_len")}

    def _unknown(self, name: str, refused: EndpointRefused) -> str:
        """Why there is no such model for us: a candidate that we may not see is told from a name that means nothing."""
        if refused.status in _NOT_OURS:
            return f"{self.url}: {refused} (set {TOKEN} or {KEY})"
        if self._is_admin_api():
            return f"{self.url} is the admin API of a gateway: name its endpoint, where clients ask (`forgegate serve` prints both)"
        if not _VERSION.fullmatch(name) or self._is_admin():
            return str(refused)
        sent = f"the token that was sent is not the admin token of {self.url}" if self._has_key else "no token was sent"
        return (
            f"no model {name!r} is shown: a candidate (NAME@DIGEST) is there for the admin token alone, and {sent}; set {TOKEN} to what "
            "that gateway's admin-token file holds"
        )

    def _is_admin_api(self) -> bool:
        """Whether the address is the gateway's other one."""
        try:
            info = self._call("GET", _ADMINS_PAGE).get("info")
        except EndpointFailed:
            return False
        return isinstance(info, dict) and info.get("title") == _ADMINS_TITLE

    def _is_admin(self) -> bool:
        """By a call that is the admin's, and that names nothing and so does nothing."""
        try:
            self._call("POST", _ADMINS_CALL, {})
        except EndpointRefused as exc:
            return exc.status not in _NOT_OURS
        return True

    def tokenize(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The token ids of the prompt that these messages become."""
        told = self._call("POST", "/tokenize", {"model": self.model, "messages": list(messages)})
        with self._understood("/tokenize"):
            return [int(token) for token in told["tokens"]]

    def answer(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> Answer:
        """Greedy, by the chat API, as clients ask."""
        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        told = self._call("POST", "/v1/chat/completions", body)
        with self._understood("/v1/chat/completions"):
            choice = told["choices"][0]
            message = choice["message"]
            apart = message.get("tool_calls") or message.get("reasoning_content") or message.get("reasoning")
            usage = told.get("usage") or {}
            return Answer(
                text=str(message.get("content") or ""), has_ended=choice["finish_reason"] != "length", is_plain=not apart,
                num_prompt_tokens=usage.get("prompt_tokens"),
            )  # fmt: skip

    def scores(self, model: str, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each text the log-probability of each token but the first."""
        found: list[list[float]] = []
        for some in parts(texts, TEXTS_PER_CALL):
            body = {
                "model": model,
                "prompt": [list(text) for text in some],
                "max_tokens": 0,
                "echo": True,
                "logprobs": 0,
            }
            told = self._call("POST", "/v1/completions", body)
            with self._understood("/v1/completions with echo and logprobs"):
                choices = sorted(told["choices"], key=lambda choice: int(choice["index"]))
                found += [[float(value) for value in _scored(choice)[1:]] for choice in choices]
        if [len(row) for row in found] != [len(text) - 1 for text in texts]:
            raise EndpointRefused(f"{self.url} scored other numbers of tokens than the texts have", _NOT_DONE)
        if not all(math.isfinite(value) for row in found for value in row):
            raise EndpointFailed(f"{self.url} scored tokens with what is no finite number: its model computes wrongly")
        return found

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _understood(self, path: str) -> Iterator[None]:
        """While an answer is read. Raises EndpointFailed where it is not of the form that is known."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            raise EndpointFailed(
                f"{self.url} answers {path} otherwise than an OpenAI-compatible endpoint ({type(exc).__name__}: {exc})"
            ) from exc

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Again where it is only busy: it serves others meanwhile."""
        for number in range(NUM_TRIES):
            try:
                reply = self._client.request(method, path, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise EndpointFailed(f"{self.url} cannot be reached: {str(exc) or type(exc).__name__}") from exc
            if reply.status_code not in _BUSY or number == NUM_TRIES - 1:
                break
            self._sleep(_wait_s(reply))
        return self._content(reply)

    def _content(self, reply: httpx.Response) -> dict[str, Any]:
        try:
            content = reply.json()
        except ValueError as exc:
            raise EndpointFailed(
                f"{self.url} does not answer as an OpenAI-compatible endpoint (status {reply.status_code})"
            ) from exc
        if reply.is_error or not isinstance(content, dict):
            error = content.get("error", content) if isinstance(content, dict) else {}
            message = error.get("message") if isinstance(error, dict) else error
            raise EndpointRefused(str(message or f"status {reply.status_code}"), reply.status_code)
        return content


def _scored(choice: Mapping[str, Any]) -> Sequence[Any]:
    """Of a prompt. Raises EndpointRefused for an answer without, from who passes over `echo` or `logprobs`."""
    found: Sequence[Any] = (choice.get("logprobs") or {}).get("token_logprobs") or ()
    if not found:
        raise EndpointRefused("its answers have none", _NOT_DONE)
    return found


def _wait_s(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "")
    return min(MAX_WAIT_S, float(text)) if text.isascii() and text.isdigit() else 1.0
