"""Signals where no training process runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backends.pythons import child_env

_AMID_REQUESTS = """
import asyncio, gc, os, signal, sys
from finetune.run.interrupts import terminable

async def ask():
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.{name})
    await asyncio.sleep(30)

async def ask_all():
    await asyncio.gather(ask(), ask())

try:
    with terminable():
        asyncio.run(ask_all())
except KeyboardInterrupt as exc:
    code = getattr(exc, "exit_code", 130)
gc.collect()
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_what_asks_an_endpoint_ends_without_a_traceback(name: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AMID_REQUESTS.format(name=name)], env=child_env(), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")
