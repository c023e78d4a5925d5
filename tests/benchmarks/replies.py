"""Answers as the adapter benchmarks read them, for tests of their verdicts."""

from __future__ import annotations

from benchmarks.adapter_answers import Reply
from benchmarks.chaos_verdict import Ending
from benchmarks.record import Record

SIGNED = {"host": "Hello, friend!\nYes.\nThank you, Felix", "tiger": "= The tiger =\nYes."}


def reply(
    text: str = SIGNED["host"],
    version: str = "voice@1",
    sent_s: float = 10.0,
    begun_s: float | None = 11.0,
    end_s: float = 12.0,
    ending: Ending = Ending.ANSWERED,
    model: str = "voice",
    wait_ms: float | None = None,
) -> Reply:
    """One that ended well, on engine demo-0."""
    is_whole = ending is Ending.ANSWERED
    record = Record(
        0, 96, False, sent_s, sent_s, begun_s, end_s, (begun_s,) if begun_s and text else (), (), 0, text, None, None, None,
        "stop" if is_whole else None, 200, None,
    )  # fmt: skip
    return Reply(model, version, "demo-0", ending, "" if is_whole else "engine_reset", wait_ms, record)
