"""Connections to engines: TLS, the pool's limits, answers that come when nobody asked."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from gateway.data import upstream
from gateway.data.upstream import Pool
from gateway.snapshot import Engine, Model, Snapshot
from tests.gateway.data.rig import Call, Rig, StubEngine, echo, stream


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for `localhost` and its key."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            cert,
            "-days",
            "2",
            *subject,
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls_with_server_name_prefix_and_key(rig: Rig, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    names: list[str | None] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    context.sni_callback = lambda _, name, __: names.append(name)
    engine = StubEngine(stream(3))
    await rig.start(engine)
    server = await asyncio.start_server(engine._serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    remote = Engine("r", 0, "remote", "ready", "localhost", port, tls=True, path_prefix="/api/", secret="theirs")
    rig.relay.swap(Snapshot(9, (Model("m", "m", (remote,), capabilities=("chat",)),)))
    refused = await rig.ask()  # the default context does not know this authority
    assert refused.status_code == 502
    assert refused.json()["error"]["code"] == "engine_unreachable"
    rig.relay.pool._make_ssl_context = lambda: ssl.create_default_context(cafile=str(cert))
    rig.relay.pool._ssl_context = None
    answer = await rig.ask()
    assert answer.status_code == 200
    assert answer.content.endswith(b"[DONE]\n\n")
    assert names[-1] == "localhost"
    assert engine.calls[0].head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\n")
    assert engine.calls[0].header("authorization") == "Bearer theirs"
    assert engine.calls[0].header("host") == f"localhost:{port}"
    rig.relay.pool.close()
    server.close()
    await asyncio.sleep(0.05)


async def test_idle_connections_are_closed_before_the_engine_would(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "IDLE_S", 0.1)
    engine = StubEngine(echo())
    await rig.start(engine)
    await rig.ask()
    assert len(rig.relay.pool._open) == 1
    await asyncio.sleep(0.2)
    assert not rig.relay.pool._open
    assert (await rig.ask()).status_code == 200
    assert rig.lines[-1].retries == 0


async def test_unasked_bytes_close_an_idle_connection(rig: Rig) -> None:
    async def answer_twice(call: Call) -> None:
        await call.send_json(200, {"n": 1})
        await asyncio.sleep(0.05)
        await call.send_json(200, {"n": 2})

    engine = StubEngine(answer_twice, echo())
    await rig.start(engine)
    assert (await rig.ask()).json() == {"n": 1}
    await asyncio.sleep(0.1)
    assert not rig.relay.pool._open
    assert "got" in (await rig.ask()).json()


async def test_bytes_glued_to_the_end_of_an_answer_close_the_connection(rig: Rig) -> None:
    async def glue(call: Call) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
        await call.send(head + b"{}" + head + b"no")

    await rig.start(StubEngine(glue, echo()))
    assert (await rig.ask()).content == b"{}"
    assert "got" in (await rig.ask()).json()


async def test_interim_answers_are_skipped(rig: Rig) -> None:
    async def early(call: Call) -> None:
        await call.send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await call.send_json(200, {"n": 1})

    await rig.start(StubEngine(early))
    response = await rig.ask()
    assert response.json() == {"n": 1}
    assert "link" not in response.headers


async def test_answers_that_end_with_the_connection(rig: Rig) -> None:
    async def old(call: Call) -> None:
        await call.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}")
        call.writer.close()

    await rig.start(StubEngine(old))
    for _ in range(2):
        response = await rig.ask()
        assert response.content == b"{}"
        assert response.headers["transfer-encoding"] == "chunked"


async def test_answers_without_a_body(rig: Rig) -> None:
    async def nothing(call: Call) -> None:
        await call.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    engine = StubEngine(nothing)
    await rig.start(engine)
    for _ in range(2):
        response = await rig.ask()
        assert response.status_code == 204
        assert "transfer-encoding" not in response.headers
    assert engine.num_connections == 1


async def test_segmented_answers_are_byte_exact(rig: Rig) -> None:
    body = '{"text":"한글 ok, 123456"}'.encode()

    async def dribble(call: Call) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        data = head + body
        for start in range(0, len(data), 3):
            await call.send(data[start : start + 3])
            await asyncio.sleep(0.001)

    await rig.start(StubEngine(dribble))
    assert (await rig.ask()).content == body


async def test_check_integrity_sees_a_stray_connection(rig: Rig) -> None:
    engine = StubEngine(echo())
    await rig.start(engine)
    pool = rig.relay.pool
    connection = await pool.dial(upstream.Address("127.0.0.1", engine.port, False))
    with pytest.raises(AssertionError, match="1 connections"):
        pool.check_integrity()
    connection.close()
    assert isinstance(pool, Pool)
