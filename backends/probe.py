"""Asking engines over HTTP: health, facts, load. Where speed does not matter."""

from __future__ import annotations

import httpx

from backends.base import Address, Fetch, Reply
from backends.errors import ProbeFailed

MAX_BODY_BYTES = 8 * 1024 * 1024


class Prober:
    """One HTTP client for all probes. Fresh connections: a pooled one that went stale would look like a sick engine."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(transport=transport, limits=limits, trust_env=False)

    def fetch(self, address: Address, secret: str, timeout_s: float) -> Fetch:
        """GET on one engine."""

        async def get(path: str) -> Reply:
            return await self.get(address, path, secret, timeout_s)

        return get

    async def get(self, address: Address, path: str, secret: str, timeout_s: float) -> Reply:
        """Raises ProbeFailed."""
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        try:
            reply = await self._client.get(address.url + path, headers=headers, timeout=timeout_s)
        except httpx.TimeoutException as exc:
            raise ProbeFailed(f"no answer within {timeout_s:g} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ProbeFailed(str(exc) or type(exc).__name__) from exc
        return Reply(reply.status_code, reply.content[:MAX_BODY_BYTES])

    async def close(self) -> None:
        await self._client.aclose()
