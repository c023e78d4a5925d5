"""Everything that is not hot: one request of a client's connection, answered by the FastAPI app on uvicorn.

The connection stays ours. For each cold request uvicorn gets a protocol object of its own, on a transport that writes
through to the client; it sees one request and ends. So hot and cold requests can share a keep-alive connection, and
uvicorn's ASGI machinery needs to know nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway import errors
from gateway.accesslog import AccessLine
from gateway.data.auth import authenticate, is_guarded
from gateway.data.relay import Relay
from gateway.data.request import Client, Request
from gateway.errors import GatewayError

_REWRITTEN = (b"connection:", b"content-length:", b"transfer-encoding:", b"expect:", b"x-request-id:", b"upgrade:")


class ColdStage:
    """The app under uvicorn's configuration, one for a worker."""

    def __init__(self, app: Any) -> None:
        self.config = Config(
            app, log_config=None, access_log=False, server_header=False, date_header=False, lifespan="off", ws="none"
        )
        self.config.load()
        logging.getLogger("uvicorn.access").propagate = False
        self.state = ServerState()


class ColdExchange:
    """One request on its way through uvicorn."""

    __slots__ = ("_can_continue", "_client", "_is_done", "_key_name", "_protocol", "_relay", "_request", "_stage",
                 "_status", "_transport")  # fmt: skip

    def __init__(
        self, relay: Relay, client: Client, request: Request, stage: ColdStage, transport: asyncio.Transport
    ) -> None:
        self._relay = relay
        self._client = client
        self._request = request
        self._stage = stage
        self._transport = transport
        self._protocol: _OneRequest | None = None
        self._can_continue = request.head.is_keep_alive and not relay.is_draining
        self._is_done = False
        self._status = 0
        self._key_name = ""

    def start(self) -> None:
        """Check the key, hand the request to uvicorn."""
        try:
            if is_guarded(self._request.head.path):
                self._key_name = authenticate(self._relay.index, self._request.head.token_digest)
        except GatewayError as error:
            dialect = self._request.head.dialect
            self._client.write(errors.render(error, dialect, self._request.id, is_keep_alive=self._can_continue))
            self._finish(error.status, error.code)
            return
        self._protocol = _OneRequest(self._stage, self._relay.loop, self)
        self._protocol.connection_made(_Through(self, self._transport))
        self._protocol.data_received(self._encode())

    def client_gone(self) -> None:
        """Tell the app that nobody listens."""
        if not self._is_done:
            self._finish(499, errors.ClientGone.code)

    def pause(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def write(self, data: bytes) -> None:
        """Pass on what uvicorn writes; its first bytes are the status line."""
        if self._is_done:
            return
        if not self._status:
            self._status = int(data[9:12])
        self._client.write(data)

    def complete(self) -> None:
        """uvicorn has written the whole answer."""
        if not self._is_done:
            self._finish(self._status, "")

    def closed_by_app(self) -> None:
        """uvicorn wants the connection closed: after a whole answer, or because the app failed in the middle."""
        if self._is_done:
            return
        self._can_continue = False
        if self._protocol is None or self._protocol.is_answered:
            return
        self._client.cut(False)
        self._finish(500, errors.InternalError.code)

    def _encode(self) -> bytes:
        request = self._request
        head = request.head
        kept = [line for line in [*head.withheld, *head.forwarded] if not line.startswith(_REWRITTEN)]
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\n" % (head.method, head.target),
                *kept,
                b"x-request-id: %b\r\ncontent-length: %d\r\n" % (request.id.encode(), len(request.body)),
                b"\r\n" if self._can_continue else b"connection: close\r\n\r\n",
                request.body,
            )
        )

    def _finish(self, status: int, code: str) -> None:
        self._is_done = True
        if self._protocol is not None:
            self._protocol.connection_lost(None)
            self._protocol = None
        self._account(status, code)
        self._client.exchange_done(self._can_continue)

    def _account(self, status: int, code: str) -> None:
        request = self._request
        self._relay.book(
            AccessLine(
                time=time.time(),
                request_id=request.id,
                client=self._client.address,
                method=request.head.method.decode("latin-1"),
                path=request.head.path,
                status=status,
                duration_ms=round((self._relay.clock() - request.started_s) * 1000, 3),
                error=code,
                key=self._key_name,
            )
        )


class _OneRequest(HttpToolsProtocol):
    """uvicorn's protocol for one request: the end of the answer is reported instead of awaiting the next request."""

    def __init__(self, stage: ColdStage, loop: asyncio.AbstractEventLoop, exchange: ColdExchange) -> None:
        super().__init__(stage.config, stage.state, {}, loop)
        self._exchange = exchange

    @property
    def is_answered(self) -> bool:
        """Whether the whole answer has been written."""
        return bool(self.cycle and self.cycle.response_complete)

    def on_response_complete(self) -> None:
        self._exchange.complete()


class _Through(asyncio.Transport):
    """The transport that uvicorn sees."""

    def __init__(self, exchange: ColdExchange, transport: asyncio.Transport) -> None:
        super().__init__()
        self._exchange = exchange
        self._real = transport
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._exchange.write(bytes(data))

    def is_closing(self) -> bool:
        return self._is_closing or self._real.is_closing()

    def close(self) -> None:
        self._is_closing = True
        self._exchange.closed_by_app()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._real.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Nothing to do: the request is whole."""

    def resume_reading(self) -> None:
        """Nothing to do."""
