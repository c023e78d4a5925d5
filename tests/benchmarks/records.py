"""Records made by hand, for formulas."""

from dataclasses import replace

from benchmarks.record import Failure, FailureKind, Record

EMPTY = Record(
    index=0,
    max_tokens=4,
    is_exact=True,
    intended_s=10.0,
    sent_s=10.5,
    first_byte_s=11.0,
    end_s=15.0,
    chunk_times_s=(11.5, 12.0, 13.0, 14.5),
    chunk_chars=(3, 3, 3, 3),
    num_reads=4,
    text="one two four",
    prompt_tokens=7,
    completion_tokens=4,
    cached_tokens=None,
    finish_reason="length",
    status=200,
    failure=None,
)


def record(**changes: object) -> Record:
    return replace(EMPTY, **changes)  # type: ignore[arg-type]


def failed(kind: FailureKind = FailureKind.TRUNCATED) -> Record:
    return record(failure=Failure(kind, "as told"), completion_tokens=None, finish_reason=None)
