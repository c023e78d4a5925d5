"""Sends one streaming completion over raw asyncio and returns what came back, unparsed, with its times."""

import asyncio
import os
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.http1 import Clock, Connection, Exchange
from benchmarks.record import Failure, FailureKind


class TargetError(ValueError):
    """The URL cannot be one of an OpenAI-compatible server."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `prefix` is what stands before `/v1`."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    api_key: str | None = None

    @classmethod
    def from_url(cls, url: str, api_key: str | None = None) -> "Target":
        """`http[s]://host[:port][/prefix][/v1]`; raises TargetError with the reason."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https"):
            raise TargetError(f"{url!r} is not an http or https URL")
        try:
            port = parts.port
        except ValueError as exc:
            raise TargetError(f"{url!r}: {exc}") from exc
        if not parts.hostname:
            raise TargetError(f"{url!r} names no host")
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), prefix, api_key)

    @property
    def url(self) -> str:
        """For people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    def head(self, method: str, path: str, num_body_bytes: int = 0, *, keep_alive: bool = True) -> bytes:
        """The request's head, up to and with the empty line."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"host: {host}:{self.port}", "user-agent: forgegate-bench"]
        if self.api_key:
            lines.append(f"authorization: Bearer {self.api_key}")
        if method in ("POST", "PUT"):
            lines += ["content-type: application/json", f"content-length: {num_body_bytes}"]
        if not keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Client:
    """Connections to one target. With `keep_alive` a connection is used again, most recently used first; without it
    every request opens its own, and the request's `sent` stamp comes after the connection stands.
    """

    def __init__(
        self,
        target: Target,
        *,
        keep_alive: bool = True,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.target = target
        self.clock = clock
        self.num_connects = 0
        self._keep_alive = keep_alive
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._address: str | None = None
        self._ssl = ssl.create_default_context() if target.scheme == "https" else None

    async def post(self, path: str, body: bytes) -> Exchange:
        """The exchange, ended; its failure, if any, is inside."""
        return await self._send(self.target.head("POST", path, len(body), keep_alive=self._keep_alive) + body)

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
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _send(self, request: bytes) -> Exchange:
        connection = self._take_idle()
        if connection is not None:
            exchange = await self._exchange(connection, request)
            if exchange.failure is None or exchange.failure.kind is not FailureKind.RESET:
                return exchange
            # The server closed an idle connection just as it was used again: RFC 9112, 9.3.1 asks clients to retry.
        try:
            connection = await self._connect()
        except OSError as exc:
            return self._unconnected(self._reason(exc))
        return await self._exchange(connection, request)

    async def _exchange(self, connection: Connection, request: bytes) -> Exchange:
        waiter = connection.send(request)
        alarm = asyncio.get_running_loop().call_later(self._timeout_s, connection.abort, self._timed_out())
        try:
            exchange = await waiter
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            alarm.cancel()
        if self._keep_alive and connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return exchange

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self.num_connects += 1
        name = self.target.host if self._ssl else None
        async with asyncio.timeout(self._connect_timeout_s):
            if self._address is None:
                self._address = await self._resolve(loop)
            _, connection = await loop.create_connection(
                lambda: Connection(self.clock), self._address, self.target.port, ssl=self._ssl, server_hostname=name
            )
        return connection

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> str:
        # Once: a look-up for each connection would measure the resolver. The first address that accepts is kept.
        found = await loop.getaddrinfo(self.target.host, self.target.port, type=1)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses[:-1]:
            try:
                _, writer = await asyncio.open_connection(address, self.target.port)
            except OSError:
                continue
            writer.close()
            return address
        return addresses[-1]

    def _reason(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"no connection within {self._connect_timeout_s:g} s"
        if isinstance(error, socket.gaierror) or not error.errno:
            return error.strerror or str(error) or type(error).__name__
        return os.strerror(error.errno).lower()  # asyncio's own text names the address again, and not the reason

    def _timed_out(self) -> Failure:
        return Failure(FailureKind.TIMEOUT, f"not complete within {self._timeout_s:g} s")

    def _unconnected(self, reason: str) -> Exchange:
        exchange = Exchange()
        exchange.end_s = self.clock()
        exchange.is_ended = True
        exchange.failure = Failure(FailureKind.CONNECT, reason)
        return exchange
