from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gateway.control import failpoints
from gateway.control.failpoints import POINTS, VARIABLE, failpoint
from gateway.exits import UsageError

CONTROL = Path(failpoints.__file__).parent


def test_every_failpoint_stands_at_one_place_and_every_place_is_in_the_table() -> None:
    used = Counter(
        name
        for path in CONTROL.glob("*.py")
        for name in re.findall(r"failpoint\(\s*\"([^\"]+)\"", path.read_text(encoding="utf-8"))
    )
    assert used == dict.fromkeys(POINTS, 1)


def test_nothing_happens_where_none_is_chosen() -> None:
    assert VARIABLE not in os.environ
    for name in POINTS:
        failpoint(name)
    failpoints.check()


def test_the_chosen_one_kills() -> None:
    code = "from gateway.control.failpoints import failpoint; failpoint('alias.told'); print('on', flush=True); failpoint('alias.moved')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, VARIABLE: "alias.moved"}, stdout=subprocess.PIPE, timeout=30
    )
    assert (done.returncode, done.stdout) == (-9, b"on\n")


def test_a_name_that_stands_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_chosen", "alias.move")
    with pytest.raises(
        UsageError, match=r"FORGEGATE_FAILPOINT=alias\.move: no such failpoint; there are: publish\.stored"
    ):
        failpoints.check()
