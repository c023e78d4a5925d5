"""How bodies become requests."""

from __future__ import annotations

import subprocess
import sys

RACE = """
import sys, threading
sys.setswitchinterval(1e-6)
from backends.llamacpp.api.chat import ChatRequest
from backends.llamacpp.api.fields import convert
body = {"messages": [{"role": "user", "content": "x"}]}
together = threading.Barrier(8)
threads = [threading.Thread(target=lambda: (together.wait(), convert(body, ChatRequest))) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_the_first_requests_may_come_at_once() -> None:
    """In several threads, each before msgspec knows the type."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
