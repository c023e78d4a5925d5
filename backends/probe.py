"""Asking engines over HTTP: health, facts, load. Where speed does not matter."""

from __future__ import annotations

import asyncio

import httpx

from backends.base import Address, Call, Fetch, Reply
from backends.errors import ProbeFailed

MAX_BODY_BYTES = 8 * 1024 * 1024
REUSE_S = 2.0
"""How long a call's connection is kept for the next one; servers close idle ones after 5 s and more."""


class Prober:
    """Two HTTP clients. Probes have fresh connections: a pooled one that went stale would look like a sick engine.

    Calls that follow each other share one: a request waits for its adapter to be loaded and then recognised.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, reuse_s: float = REUSE_S) -> None:
        fresh = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        kept = httpx.Limits(max_connections=None, keepalive_expiry=reuse_s)
        self._probes = httpx.AsyncClient(transport=transport, limits=fresh, trust_env=False)
        self._calls = httpx.AsyncClient(transport=transport, limits=kept, trust_env=False)

    def fetch(self, address: Address, secret: str, timeout_s: float) -> Fetch:
        """GET on one engine."""

        async def get(path: str) -> Reply:
            return await self.get(address, path, secret, timeout_s)

        return get

    def call(self, address: Address, secret: str) -> Call:
        """POST on one engine."""

        async def post(path: str, body: bytes, timeout_s: float) -> Reply:
            return await _send(self._calls, "POST", address, path, secret, timeout_s, body)

        return post

    async def get(self, address: Address, path: str, secret: str, timeout_s: float) -> Reply:
        """Raises ProbeFailed, also for an answer that trickles in past `timeout_s` or never ends."""
        return await _send(self._probes, "GET", address, path, secret, timeout_s)

    async def close(self) -> None:
        await self._probes.aclose()
        await self._calls.aclose()


async def _send(
    client: httpx.AsyncClient,
    method: str,
    address: Address,
    path: str,
    secret: str,
    timeout_s: float,
    body: bytes | None = None,
) -> Reply:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    if body is not None:
        headers["content-type"] = "application/json"
    url = address.url + path
    try:
        # httpx bounds each read, not the whole.
        async with (
            asyncio.timeout(timeout_s),
            client.stream(method, url, content=body, headers=headers, timeout=timeout_s) as reply,
        ):
            return Reply(reply.status_code, await _bounded(reply))
    except (httpx.TimeoutException, TimeoutError) as exc:
        raise ProbeFailed(f"no answer within {timeout_s:g} s") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ProbeFailed(str(exc) or type(exc).__name__) from exc


async def _bounded(reply: httpx.Response) -> bytes:
    """The body, at most MAX_BODY_BYTES of it."""
    body = bytearray()
    async for part in reply.aiter_bytes():
        body += part
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body[:MAX_BODY_BYTES])
