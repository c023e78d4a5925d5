from __future__ import annotations

import io
import json
from dataclasses import replace

from backends.base import Facts
from backends.status import State, Status
from gateway.control.console import Console

STARTING = Status(State.STARTING, "vLLM is starting; the last start took 48 s")


def test_states_of_engines_are_told_once_each() -> None:
    err = io.StringIO()
    console = Console(False, err=err)
    ready = replace(STARTING, state=State.READY, detail="", facts=Facts("vLLM 0.32 on CPU"))
    loading = replace(STARTING, detail="vLLM is starting: compiling; the last start took 48 s")
    asleep = replace(ready, state=State.ASLEEP, detail="asleep (level 1): idle for 5 s")
    for status in (STARTING, replace(STARTING, retry_after_s=9.0), loading, ready, asleep, STARTING):
        console.engine("m-0", status)
    assert err.getvalue().splitlines() == [
        "engine m-0: starting (vLLM is starting; the last start took 48 s)",
        "engine m-0: starting (vLLM is starting: compiling; the last start took 48 s)",
        "engine m-0: ready (vLLM 0.32 on CPU)",
        "engine m-0: asleep (asleep (level 1): idle for 5 s)",
        "engine m-0: starting (vLLM is starting; the last start took 48 s)",
    ]


def test_as_json() -> None:
    out = io.StringIO()
    Console(True, out=out).engine("m-0", replace(STARTING, pid=7))
    assert json.loads(out.getvalue()) == {
        "event": "engine", "engine": "m-0", "state": "starting", "detail": STARTING.detail, "pid": 7,
    }  # fmt: skip
