"""Verdicts, votes and watches in the admin API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import FastAPI, Request

from gateway import errors
from gateway.control.adapterapi import who_of
from gateway.control.adapters import Adapters
from gateway.control.adapterviews import AliasView, ShareView, alias_view
from gateway.control.desired import Choice, Verdict, Vote, Watch
from gateway.control.naming import find_alias, find_version
from gateway.control.store import Store
from gateway.control.verdicts import MAX_BYTES

MAX_WINDOW_S = 3600.0
MAX_TTFT_RATIO = 1000.0
_STRICT = {"extra": "forbid"}
DOCUMENT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
        "description": "The document that `forgegate gate` writes, as it is: `forgegate-verdict`, version 1.",
    }
}


@dataclass(frozen=True, slots=True)
class WatchBody:
    __pydantic_config__: ClassVar = _STRICT
    max_error_share: float = 0.02
    """Of the newest version's requests those that may end in an engine's failure, 0 to 1."""
    max_ttft_ratio: float = 1.5
    """Its median time to first byte over that of what was served before."""
    min_requests: int = 100
    """With fewer nothing is decided."""
    window_s: float = 300.0
    who: str = ""


@dataclass(frozen=True, slots=True)
class VoteBody:
    __pydantic_config__: ClassVar = _STRICT
    session: str
    candidate: str
    live: str
    """The version, or the model, that it was shown beside."""
    prompt_digest: str
    choice: Choice
    who: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    digest: str


@dataclass(frozen=True, slots=True)
class VerdictView:
    digest: str
    candidate: str
    live: tuple[ShareView, ...]
    """What it was held against; empty: the base."""
    base: str
    suite: str
    rule: str
    outcome: str
    reasons: tuple[str, ...]
    who: str
    at: float
    """Unix seconds, when it was taken in."""
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class VerdictList:
    data: tuple[VerdictView, ...]


@dataclass(frozen=True, slots=True)
class VoteView:
    session: str
    candidate: str
    live: str
    prompt_digest: str
    choice: str
    who: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class VoteList:
    data: tuple[VoteView, ...]


class GateApi:
    """The routes. Votes change nothing that is served: they go straight to the store."""

    def __init__(self, adapters: Adapters, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._adapters = adapters
        self._store = store
        self._clock = clock

    async def add_verdict(self, request: Request) -> Taken:
        """Take in the document of a verdict. The same one again changes nothing."""
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BYTES:
                raise errors.BodyTooLarge(f"a verdict has {MAX_BYTES} bytes at most")
        return Taken((await self._adapters.add_verdict(bytes(content), who_of(request, ""))).digest)

    async def verdicts(self, candidate: str = "") -> VerdictList:
        """Newest first; of one version, or all."""
        name = self._candidate(candidate) if candidate else ""
        found = self._adapters.verdicts(name)
        documents = await self._adapters.documents(name)
        return VerdictList(tuple(_verdict_view(verdict, documents[verdict.digest]) for verdict in found))

    async def add_vote(self, request: Request, body: VoteBody) -> VoteView:
        """Keep which answer somebody preferred; in place of an earlier vote of the same session on the same prompt."""
        for name in ("session", "candidate", "live", "prompt_digest"):
            require_text(name, getattr(body, name), 80 if name == "prompt_digest" else 128)
        vote = Vote(
            body.session, body.candidate, body.live, body.prompt_digest, body.choice, who_of(request, body.who), self._clock()
        )  # fmt: skip
        await self._store.add_vote(vote)
        return _vote_view(vote)

    async def votes(self, candidate: str = "", live: str = "", session: str = "") -> VoteList:
        """Oldest first; those that fit what is named."""
        return VoteList(tuple(map(_vote_view, await self._store.votes(candidate, live, session))))

    async def watch(self, request: Request, name: str, body: WatchBody = WatchBody()) -> AliasView:
        """Let it go back by itself where its newest version does worse than this."""
        require(0 <= body.max_error_share <= 1, "max_error_share", "a share from 0 to 1")
        require(1 < body.max_ttft_ratio <= MAX_TTFT_RATIO, "max_ttft_ratio", f"above 1, {MAX_TTFT_RATIO:g} at most")
        require(1 <= body.min_requests <= 1_000_000_000, "min_requests", "a whole number from 1")
        require(1 <= body.window_s <= MAX_WINDOW_S, "window_s", f"1 to {MAX_WINDOW_S:g} seconds")
        watch = Watch(
            body.max_error_share, body.max_ttft_ratio, body.min_requests, body.window_s, who_of(request, body.who), self._clock()
        )  # fmt: skip
        return await self._set_watch(name, watch)

    async def unwatch(self, name: str) -> AliasView:
        """Only people move it from here on."""
        return await self._set_watch(name, None)

    async def _set_watch(self, name: str, watch: Watch | None) -> AliasView:
        alias = find_alias(name, self._adapters.aliases())
        await self._adapters.watch(alias.name, watch)
        return alias_view(find_alias(name, self._adapters.aliases()))

    def _candidate(self, text: str) -> str:
        """Also of a version that was removed since, by its whole name."""
        if any(verdict.candidate == text for verdict in self._adapters.verdicts()):
            return text
        return find_version(text, self._adapters.versions()).name


def add_gate_routes(app: FastAPI, api: GateApi, dependencies: list[Any]) -> None:
    """Before those of adapters: their names may hold slashes, so that the longer paths come first."""
    verdicts, alias = "/admin/v1/verdicts", "/admin/v1/aliases/{name:path}"
    for method, path, endpoint, extra in (
        ("POST", verdicts, api.add_verdict, DOCUMENT),
        ("GET", verdicts, api.verdicts, None),
        ("POST", "/admin/v1/votes", api.add_vote, None),
        ("GET", "/admin/v1/votes", api.votes, None),
        ("POST", f"{alias}/watch", api.watch, None),
        ("POST", f"{alias}/unwatch", api.unwatch, None),
    ):
        app.add_api_route(path, endpoint, methods=[method], dependencies=dependencies, openapi_extra=extra)


def require(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise errors.BadRequest(f"{name}: expected {expected}", param=name)


def require_text(name: str, text: str, longest: int) -> None:
    require(bool(text) and len(text) <= longest and text.isprintable(), name, f"1 to {longest} printable characters")


def _verdict_view(verdict: Verdict, document: str) -> VerdictView:
    return VerdictView(
        verdict.digest, verdict.candidate, tuple(ShareView(share.adapter, share.weight) for share in verdict.live),
        verdict.base, verdict.suite, verdict.rule, verdict.outcome, verdict.reasons, verdict.who, verdict.at,
        json.loads(document),
    )  # fmt: skip


def _vote_view(vote: Vote) -> VoteView:
    return VoteView(vote.session, vote.candidate, vote.live, vote.prompt_digest, vote.choice, vote.who, vote.at)
