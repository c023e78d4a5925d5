"""vLLM's calls that load and unload an adapter, passed on to the admin API, which acts on the whole fleet.

    POST /v1/load_lora_adapter --admin token--> POST ADMIN_URL/admin/v1/load_lora_adapter --> its answer, as it is

The caller's token goes along, as a worker has none of its own, and its address, for the record. A client that leaves does not undo
the call.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.data.answer import HeldAnswer
from gateway.data.framing import BodyRelay, ResponseHead
from gateway.data.snapshot import Address, header_value
from gateway.data.upstream import Pool
from gateway.errors import ControlUnreachable, EngineFailed

PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
ANSWER_S = 600.0
"""An adapter that is new here is checked, converted and proven before the answer comes."""
CONNECT_S = 2.0
RETRY_S = 2


class Caller(NamedTuple):
    """Whose call it is."""

    token: bytes
    """The admin's."""
    address: str


class Answer(NamedTuple):
    """What the admin API said."""

    status: int
    content_type: str
    body: bytes


async def pass_on(pool: Pool, admin_url: str, path: str, caller: Caller, request_id: str, body: bytes) -> Answer:
    """Send the call and return the answer. Raises ControlUnreachable."""
    if not admin_url:
        raise ControlUnreachable("the admin API's address is not known here", retry_after_s=RETRY_S)
    url = urlsplit(admin_url)
    is_tls = url.scheme == "https"
    address = Address(url.hostname or "", url.port or (443 if is_tls else 80), is_tls)
    head = (
        b"POST %b/admin%b HTTP/1.1\r\nhost: %b\r\nauthorization: Bearer %b\r\nx-forgegate-client: %b\r\nx-request-id: %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    place = (url.path.rstrip("/").encode(), path.encode(), url.netloc.encode())
    payload = head % (*place, caller.token, header_value(caller.address), header_value(request_id), len(body)) + body
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await pool.dial(address)  # a pooled one may be stale, and a call must not be sent twice
        reply = _Reply(asyncio.get_running_loop().create_future())
        connection.send(reply, payload)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await reply.answer
        finally:
            if not reply.is_over:
                connection.close()
    except TimeoutError as exc:
        raise ControlUnreachable("the admin API did not answer in time", retry_after_s=RETRY_S) from exc
    except OSError as exc:
        reason = exc.strerror or str(exc) or type(exc).__name__
        raise ControlUnreachable(f"the admin API cannot be reached: {reason}", retry_after_s=RETRY_S) from exc


class _Reply:
    """Receives one answer whole."""

    def __init__(self, answer: asyncio.Future[Answer]) -> None:
        self.answer = answer
        self.is_over = False
        """The connection is the pool's again, or closed."""
        self._held: HeldAnswer | None = None

    def on_head(self, head: ResponseHead, length: int) -> BodyRelay:
        self._held = HeldAnswer(head, length)
        return self._held.body

    def on_complete(self, can_reuse: bool) -> None:
        assert self._held is not None
        self.is_over = True
        head = self._held.head
        if not self.answer.done():
            self.answer.set_result(Answer(head.status, head.content_type() or "application/json", self._held.content()))

    def on_lost(self, has_answered: bool) -> None:
        self._fail("closed the connection before its answer was complete")

    def on_bad_answer(self, error: EngineFailed) -> None:
        self._fail("gave an answer that is no valid HTTP")

    def _fail(self, what: str) -> None:
        self.is_over = True
        if not self.answer.done():
            self.answer.set_exception(ControlUnreachable(f"the admin API {what}", retry_after_s=RETRY_S))
