"""Sends one request after the other and returns what came back, unparsed, with its times."""

import asyncio
import time
from dataclasses import dataclass

from benchmarks.http1 import Clock, Exchange
from benchmarks.pool import Pool
from benchmarks.target import Target, TargetError

__all__ = ["Client", "ClientOptions", "Target", "TargetError"]


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """All that makes a client, to make the same one in another process."""

    target: Target
    keep_alive: bool = True
    timeout_s: float = 600.0
    max_connections: int | None = None

    def client(self) -> "Client":
        """A new one."""
        limit = self.max_connections
        return Client(self.target, keep_alive=self.keep_alive, timeout_s=self.timeout_s, max_connections=limit)


class Client:
    """Connections to one target, of which a pool keeps account. An exchange's failure, if any, is inside."""

    def __init__(
        self,
        target: Target,
        *,
        keep_alive: bool = True,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 10.0,
        max_connections: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.target = target
        self.options = ClientOptions(target, keep_alive, timeout_s, max_connections)
        self.clock = clock
        self.pool = Pool(
            target,
            clock,
            keep_alive=keep_alive,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            limit=max_connections,
        )
        self._keep_alive = keep_alive
        self._heads: dict[str, tuple[bytes, bytes]] = {}

    @property
    def num_connects(self) -> int:
        """Connections opened so far."""
        return self.pool.num_connects

    @property
    def num_ended(self) -> int:
        """Requests that were answered or failed so far."""
        return self.pool.num_ended

    def encode(self, path: str, body: bytes) -> bytes:
        """A POST's bytes."""
        head = self._heads.get(path)
        if head is None:
            before, mark, after = self.target.head("POST", path, 0, keep_alive=self._keep_alive).partition(b"length: 0")
            head = self._heads[path] = (before + mark[:-1], after)
        return b"%b%d%b%b" % (head[0], len(body), head[1], body)

    async def post(self, path: str, body: bytes) -> Exchange:
        """The exchange, ended."""
        return await self._send(self.encode(path, body))

    async def put(self, path: str, body: bytes) -> Exchange:
        """As `post`."""
        return await self._send(self.target.head("PUT", path, len(body), keep_alive=self._keep_alive) + body)

    async def get(self, path: str) -> Exchange:
        """As `post`, without a body."""
        return await self._send(self.target.head("GET", path, keep_alive=self._keep_alive))

    async def delete(self, path: str) -> Exchange:
        """As `get`."""
        return await self._send(self.target.head("DELETE", path, keep_alive=self._keep_alive))

    def close(self) -> None:
        """Close the idle connections."""
        self.pool.close()

    async def _send(self, request: bytes) -> Exchange:
        waiter: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        job = self.pool.submit(request, lambda exchange: None if waiter.done() else waiter.set_result(exchange))
        try:
            return await waiter
        except asyncio.CancelledError:
            self.pool.drop(job)
            raise
