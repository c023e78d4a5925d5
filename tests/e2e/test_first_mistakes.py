"""What newcomers get wrong first: one line that names it, the right exit code, and nothing sent or started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.processes import ROOT, Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def forgegate(*arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT, input=stdin, capture_output=True, timeout=60, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", ""), "--model is empty"),
        (("--name", ""), "--name is empty"),
        (("--model", "http://localhost:1/v1"), "a URL needs --engine remote"),
        (("--model", "demoo"), "did you mean 'demo'?"),
        (("--port", "18300", "--admin-port", "18300"), "cannot share port 18300"),
    ],
)
def test_serve_says_what_is_wrong(arguments: tuple[str, ...], said: str) -> None:
    done = forgegate("serve", "--check", *arguments)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize(("stdin", "said"), [(b"\xff\xfe", "not UTF-8"), (b"  \n", "nothing on standard input")])
def test_chat_sends_nothing_that_is_no_question(stdin: bytes, said: str) -> None:
    done = forgegate("chat", "--url", "http://127.0.0.1:1", stdin=stdin)
    assert done.returncode == 2
    assert said in done.stderr.decode()


def test_an_admin_url_without_its_token(tmp_path: Path) -> None:
    done = forgegate("engines", "list", "--admin-url", "http://127.0.0.1:1", FORGEGATE_HOME=str(tmp_path / "other"))
    assert done.returncode == 3
    assert "FORGEGATE_ADMIN_TOKEN" in done.stderr.decode()


@pytest.mark.engine
def test_a_restart_is_over_when_the_command_is(tmp_path: Path) -> None:
    with Served(tmp_path / "home", "--port", "0", "--admin-port", "0") as served:
        served.wait_ready()
        done = forgegate("engines", "restart", "demo-0", FORGEGATE_HOME=str(tmp_path / "home"))
        assert (done.returncode, b"demo-0: ready (" in done.stdout) == (0, True), done.stderr
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "tools": [], "temperature": 0}
        assert httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=30).status_code == 200
        assert served.engine()["num_restarts"] == 1
