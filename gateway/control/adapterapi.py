"""Adapters in the admin API: publish, versions, aliases, and vLLM's two calls, which act on the whole fleet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from fastapi import FastAPI, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from gateway import errors
from gateway import snapshot as wire
from gateway.control.adapters import Adapters
from gateway.control.adapterviews import (
    AdapterList,
    AliasList,
    AliasView,
    ChangeView,
    FiguresView,
    Found,
    VersionDone,
    alias_view,
    change_view,
    found_alias,
    found_version,
    version_views,
)  # fmt: skip
from gateway.control.desired import AliasState, Change, VersionState
from gateway.control.naming import find_alias, find_version
from gateway.control.publish import Job, Order, Publisher, require_alias_name

MAX_WHO = 128
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        "description": "A tar archive, plain or gzipped, of adapter_config.json and adapter_model.safetensors; the golden.safetensors "
        "of `forgegate export` beside them becomes its reference, attested by the publisher.",
    },
    "responses": {
        "200": {
            "description": "JSON lines: `progress` events with their stage, then one `published` or `error` event.",
            "content": {"application/x-ndjson": {"schema": {"type": "object"}}},
        }
    },
}  # fmt: skip
_STRICT = {"extra": "forbid"}
CLIENT_HEADER = "x-forgegate-client"
"""Whose call a worker passes on: the client's address."""


@dataclass(frozen=True, slots=True)
class ShareBody:
    __pydantic_config__: ClassVar = _STRICT
    adapter: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class PointBody:
    """One share: a flip; several: a split, sticky per user or session."""

    __pydantic_config__: ClassVar = _STRICT
    shares: tuple[ShareBody, ...]
    who: str = ""
    reason: str = ""
    force: str = ""
    """Why the alias moves without a verdict, or against it. Recorded."""
    verdict: str = ""
    """Digest of the verdict that allows it, or its beginning; empty: the gateway looks for one that fits."""


@dataclass(frozen=True, slots=True)
class WhoBody:
    __pydantic_config__: ClassVar = _STRICT
    who: str = ""


@dataclass(frozen=True, slots=True)
class LoadBody:
    """As vLLM's; `lora_name` becomes the alias."""

    __pydantic_config__: ClassVar = _STRICT
    lora_name: str
    lora_path: str
    """A folder under one of `adapters.roots`."""
    load_inplace: bool = False
    """Refused: a name is never reused for other weights."""


@dataclass(frozen=True, slots=True)
class UnloadBody:
    """As vLLM's."""

    __pydantic_config__: ClassVar = _STRICT
    lora_name: str
    lora_int_id: int | None = None
    """vLLM's; names are enough here."""


class AdapterApi:
    """The routes. `roots`: folders of this machine from which a path may be taken; `figures`: of an alias's requests lately."""

    def __init__(
        self,
        adapters: Adapters,
        publisher: Publisher,
        roots: Sequence[str],
        figures: Callable[[str], tuple[FiguresView, ...]] = lambda alias: (),
    ) -> None:
        self._adapters = adapters
        self._publisher = publisher
        self._roots = roots
        self._figures = figures

    # Publish ----------------------------------------------------------------------------------------------------------

    async def publish(
        self,
        request: Request,
        name: Annotated[str, Query(description="the alias")],
        model: Annotated[
            str, Query(description="what it was trained on; needed where several models take adapters")
        ] = "",
        candidate_only: Annotated[bool, Query(description="leave the alias as it is")] = False,
        who: Annotated[str, Query(max_length=MAX_WHO)] = "",
        force: Annotated[str, Query(description="a reason to move the alias against the gate")] = "",
    ) -> StreamingResponse:
        """Take an adapter, prove it, let the alias serve it. Once it is received this goes on, whether the client stays or not."""
        order = Order(name, model, who_of(request, who), candidate_only, force)
        try:
            job = await self._publisher.upload(order, request.stream(), _length_of(request))
        except ClientDisconnect as exc:
            raise errors.ClientGone("the client left before its upload was complete") from exc
        return StreamingResponse(_lines(job), media_type="application/x-ndjson")

    async def load(self, request: Request, body: LoadBody) -> PlainTextResponse:
        """vLLM's `load_lora_adapter`: publish what lies at a path of this machine, under one of `adapters.roots`."""
        if body.load_inplace:
            raise errors.BadRequest(
                "load_inplace: a name is never reused for other weights; what is published under an alias becomes a version of "
                "its own",
                param="load_inplace",
            )
        folder = await asyncio.to_thread(allowed_folder, body.lora_path, self._roots)
        job = self._publisher.from_folder(Order(body.lora_name, "", _passed_on_by(request)), folder)
        done = await job.outcome()
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully: {done['version']}.")

    async def unload(self, request: Request, body: UnloadBody) -> PlainTextResponse:
        """vLLM's `unload_lora_adapter`: an alias goes, and what only it served is freed; a version is freed."""
        aliases = {alias.name: alias for alias in self._adapters.aliases()}
        if body.lora_name in aliases:
            await self._unload_alias(aliases.pop(body.lora_name), aliases.values(), _passed_on_by(request))
        else:
            await self._adapters.unload(self._version(body.lora_name).name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    async def _unload_alias(self, alias: AliasState, others: Iterable[AliasState], who: str) -> None:
        """Raises Conflict, and changes nothing, where what only the alias serves is pinned."""
        elsewhere = {share.adapter for other in others for share in other.shares}
        pinned = {version.name for version in self._adapters.versions() if version.is_pinned}
        served = [share.adapter for share in alias.shares if share.adapter not in elsewhere]
        if staying := next((name for name in served if name in pinned), None):
            raise errors.Conflict(f"{staying} is pinned: unpin it first; the alias {alias.name} stays")
        await self._adapters.drop(alias.name, who)
        for name in served:
            # The alias is gone, which is what was asked for: what is still used leaves when room is needed.
            with suppress(errors.Conflict):
                await self._adapters.unload(name)

    # Versions ---------------------------------------------------------------------------------------------------------

    async def versions(self) -> AdapterList:
        """Every version: its state, where it is loaded, its proof on each engine."""
        return AdapterList(version_views(self._adapters))

    async def show(self, name: str) -> Found:
        """A version, or an alias with the versions it serves or has served, and its history."""
        aliases = self._adapters.aliases()
        if any(alias.name == name for alias in aliases):
            return found_alias(self._adapters, find_alias(name, aliases), self._figures(name))
        return found_version(self._adapters, self._version(name, aliases))

    async def pin(self, name: str) -> VersionDone:
        """Keep it loaded, however long nobody asks for it."""
        return await self._do(name, self._adapters.pin)

    async def unpin(self, name: str) -> VersionDone:
        """Let it go when room is needed."""
        return await self._do(name, self._adapters.unpin)

    async def unload_version(self, name: str) -> VersionDone:
        """Free it on every engine; asked for again, it is loaded and proven anew."""
        return await self._do(name, self._adapters.unload)

    async def remove(self, name: str) -> VersionDone:
        """Forget it and delete its files. Refused while an alias serves it or would roll back to it."""
        return await self._do(name, self._adapters.remove)

    # Aliases ----------------------------------------------------------------------------------------------------------

    async def aliases(self) -> AliasList:
        """What clients may ask for, and what serves it."""
        return AliasList(tuple(map(alias_view, self._adapters.aliases())))

    async def alias(self, name: str) -> AliasView:
        return alias_view(find_alias(name, self._adapters.aliases()))

    async def point(self, request: Request, name: str, body: PointBody) -> ChangeView:
        """Flip to one version or split over several. Returns once no new request is decided from the old state."""
        require_alias_name(name)
        shares = [wire.Share(self._version(share.adapter).name, _weight(share)) for share in body.shares]
        who = who_of(request, body.who)
        return self._view(
            await self._adapters.point(name, shares, who, reason=body.reason, force=body.force, verdict=body.verdict)
        )

    async def rollback(self, request: Request, name: str, body: WhoBody = WhoBody()) -> ChangeView:
        """Back to what it served before the last change."""
        alias = find_alias(name, self._adapters.aliases())
        return self._view(await self._adapters.rollback(alias.name, who_of(request, body.who)))

    async def drop(
        self, request: Request, name: str, who: Annotated[str, Query(max_length=MAX_WHO)] = ""
    ) -> ChangeView:
        """Clients that ask for it get 404 from then on; its versions stay."""
        alias = find_alias(name, self._adapters.aliases())
        return self._view(await self._adapters.drop(alias.name, who_of(request, who)))

    def _view(self, change: Change) -> ChangeView:
        return change_view(change, self._adapters.verdicts())

    def _version(self, text: str, aliases: Sequence[AliasState] | None = None) -> VersionState:
        names = None if aliases is None else [alias.name for alias in aliases]
        return find_version(text, self._adapters.versions(), names)

    async def _do(self, text: str, command: Callable[[str], Awaitable[None]]) -> VersionDone:
        version = self._version(text).name
        await command(version)
        return VersionDone(version)


def add_routes(app: FastAPI, api: AdapterApi, dependencies: list[Any]) -> None:
    """Names of aliases may hold slashes: hence `:path`; the longer routes come first."""
    version, alias = "/admin/v1/adapters/{name:path}", "/admin/v1/aliases/{name:path}"
    for method, path, endpoint, extra in (
        ("POST", "/admin/v1/adapters", api.publish, {"openapi_extra": UPLOAD, "response_class": StreamingResponse}),
        ("GET", "/admin/v1/adapters", api.versions, {}),
        ("POST", f"{version}/pin", api.pin, {}),
        ("POST", f"{version}/unpin", api.unpin, {}),
        ("POST", f"{version}/unload", api.unload_version, {}),
        ("GET", version, api.show, {}),
        ("DELETE", version, api.remove, {}),
        ("GET", "/admin/v1/aliases", api.aliases, {}),
        ("POST", f"{alias}/rollback", api.rollback, {}),
        ("GET", alias, api.alias, {}),
        ("PUT", alias, api.point, {}),
        ("DELETE", alias, api.drop, {}),
        ("POST", "/admin/v1/load_lora_adapter", api.load, {"response_class": PlainTextResponse}),
        ("POST", "/admin/v1/unload_lora_adapter", api.unload, {"response_class": PlainTextResponse}),
    ):
        app.add_api_route(path, endpoint, methods=[method], dependencies=dependencies, **extra)


def who_of(request: Request, given: str) -> str:
    """As it is recorded: what the client calls itself, and where it called from. Raises BadRequest."""
    peer = request.client.host if request.client else "unknown"
    if len(given) > MAX_WHO or not given.isprintable():
        raise errors.BadRequest(f"who: {MAX_WHO} printable characters at most", param="who")
    return f"{given} from {peer}" if given else peer


def _passed_on_by(request: Request) -> str:
    """As `who_of`, of a call whose body names nobody: the client of the worker that passed it on."""
    return who_of(request, request.headers.get(CLIENT_HEADER, ""))


def allowed_folder(path: str, roots: Sequence[str]) -> Path:
    """The folder itself, links followed, if it lies under a root. Blocks. Raises BadRequest, Forbidden."""
    if not roots:
        raise errors.Forbidden(
            "paths of this machine are not taken: name their folders in adapters.roots, or send the adapter itself with "
            "`forgegate adapters publish`",
            param="lora_path",
        )
    if not Path(path).is_absolute():
        raise errors.BadRequest(f"lora_path {path!r} is not absolute", param="lora_path")
    allowed = [Path(root).expanduser().resolve() for root in roots]
    try:
        real = Path(path).resolve(strict=True)
        is_folder = real.is_dir()
    except (OSError, RuntimeError, ValueError):
        real, is_folder = Path(path).resolve(strict=False) if "\0" not in path else Path("/"), False
    if not any(real.is_relative_to(root) for root in allowed):
        raise errors.Forbidden(f"lora_path {path!r} does not lie under adapters.roots", param="lora_path")
    if not is_folder:
        raise errors.BadRequest(f"lora_path {path!r}: no such folder", param="lora_path")
    return real


def _weight(share: ShareBody) -> int:
    if not 1 <= share.weight <= 1_000_000:
        raise errors.BadRequest(f"shares: the weight of {share.adapter} must be 1 to 1000000", param="shares")
    return share.weight


def _length_of(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


async def _lines(job: Job) -> AsyncIterator[bytes]:
    async for event in job.follow():
        yield json.dumps(event).encode() + b"\n"
