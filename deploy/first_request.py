#!/usr/bin/env python3
"""Wait for a forgegate that is starting, then ask it one question: `first_request.py wait|ask URL ...`.

    first_request.py wait URL PID TIMEOUT_S    until URL/health/ready answers 200; 1 if process PID ended or time is up
    first_request.py ask URL MODEL QUESTION    prints the answer; 1 with the reason if there is none

Standard library only; quickstart.sh calls it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request

# A proxy set for the outside world must not be asked for 127.0.0.1.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_ready(url: str) -> bool:
    try:
        with OPENER.open(f"{url}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # urllib's errors are OSErrors: not listening yet, or 503
        return False


def wait(url: str, pid: int, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_ready(url):
            return 0
        if not is_alive(pid):
            print("error: forgegate ended while starting", file=sys.stderr)
            return 1
        time.sleep(0.1)
    print(f"error: forgegate was not ready within {timeout_s:.0f} s", file=sys.stderr)
    return 1


def ask(url: str, model: str, question: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 96}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with OPENER.open(request, timeout=120) as answer:
            text = json.load(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as exc:
        print(f"error: HTTP {exc.code}: {exc.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except (OSError, ValueError, LookupError) as exc:
        print(f"error: no answer: {exc!r}", file=sys.stderr)
        return 1
    print(text.strip())
    return 0 if text.strip() else 1


def main(argv: list[str]) -> int:
    match argv:
        case ["wait", url, pid, timeout_s]:
            return wait(url, int(pid), float(timeout_s))
        case ["ask", url, model, question]:
            return ask(url, model, question)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
