from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from backends.admin_client import AdminClient
from backends.errors import AdminError


def client(answer: Callable[[httpx.Request], httpx.Response]) -> AdminClient:
    return AdminClient("http://admin", "token-1", httpx.MockTransport(answer))


def test_calls_carry_the_token_and_quote_ids() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.raw_path.decode(), request.headers["authorization"]))
        return httpx.Response(200, json={"data": [], "lines": ["a", "b"]})

    with client(answer) as admin:
        assert admin.engines() == []
        assert admin.logs("org/m 1-0", 7) == ["a", "b"]
        admin.restart("demo-0")
    assert seen == [
        ("GET", "/admin/v1/engines", "Bearer token-1"),
        ("GET", "/admin/v1/engines/org/m%201-0/logs?lines=7", "Bearer token-1"),
        ("POST", "/admin/v1/engines/demo-0/restart", "Bearer token-1"),
    ]


def test_a_refusal_is_told_in_the_servers_words() -> None:
    body = {"error": {"message": "no engine 'x'", "type": "t", "param": None, "code": None}}
    with (
        client(lambda _: httpx.Response(404, json=body)) as admin,
        pytest.raises(AdminError, match="no engine 'x'") as caught,
    ):
        admin.restart("x")
    assert (caught.value.status, caught.value.exit_code) == (404, 2)


@pytest.mark.parametrize(("status", "exit_code"), [(400, 2), (409, 2), (401, 3), (403, 3), (500, 3), (503, 3)])
def test_what_was_wrong_with_the_call_is_the_callers(status: int, exit_code: int) -> None:
    with client(lambda _: httpx.Response(status, json={})) as admin, pytest.raises(AdminError) as caught:
        admin.models()
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize("reply", [httpx.Response(200, text="<html>"), httpx.Response(500, json=[1])])
def test_something_else_at_that_address_is_said_so(reply: httpx.Response) -> None:
    with client(lambda _: reply) as admin, pytest.raises(AdminError):
        admin.engines()


def test_nobody_there() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client(refuse) as admin, pytest.raises(AdminError, match="cannot be reached: refused"):
        admin.models()
