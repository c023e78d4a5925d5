from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest

from gateway.control.sockets import listen, url_of
from gateway.exits import UNABLE, CommandError


def test_a_port_in_use_names_port_holder_and_what_to_change() -> None:
    with listen("127.0.0.1", 0, "endpoint", "--port") as first:
        port = first.getsockname()[1]
        with pytest.raises(CommandError) as caught:
            listen("127.0.0.1", port, "endpoint", "--port (server.port)")
    assert caught.value.exit_code == UNABLE
    words = str(caught.value)
    assert words.startswith(f"endpoint: port {port} is in use")
    assert words.endswith("choose another with --port (server.port)")
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in words


def test_hosts_that_cannot_be() -> None:
    with pytest.raises(CommandError, match=r"unknown host 'no\.such\.host\.invalid'"):
        listen("no.such.host.invalid", 0, "endpoint", "--host")
    with pytest.raises(CommandError, match=r"cannot listen on 192\.0\.2\.1:0"):
        listen("192.0.2.1", 0, "endpoint", "--host")


def test_a_wildcard_is_shown_as_something_to_click() -> None:
    with listen("0.0.0.0", 0, "endpoint", "--port") as sock:
        assert url_of(sock, "0.0.0.0") == f"http://127.0.0.1:{sock.getsockname()[1]}"


async def test_small_answers_are_not_held_back() -> None:
    """Nagle's algorithm and delayed acknowledgements would make each take 40 ms."""
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = writer.get_extra_info("socket")
        accepted.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with listen("127.0.0.1", 0, "endpoint", "--port") as sock:
        server = await asyncio.start_server(connected, sock=sock)
        _, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
        assert await asyncio.wait_for(accepted, 5) != 0
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
