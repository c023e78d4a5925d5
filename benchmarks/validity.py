"""Whether a run's figures may be believed. Pure: faults make a run invalid, remarks are what its reader must know."""

from dataclasses import dataclass

from benchmarks.metrics import Summary

CLIENT_BUSY_LIMIT = 0.7
"""Share of a core above which the client may be what was measured."""

CHUNKS_PER_READ_LIMIT = 1.1
"""Chunks that share a read have gap 0 between them; above this mean the median gap is no longer the server's pace."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Valid when there is no fault."""

    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """True when the figures may be used."""
        return not self.faults


def judge(summary: Summary, client_busy: float) -> Verdict:
    """Faults and remarks of one run."""
    return Verdict(tuple(_faults(summary, client_busy)), tuple(_remarks(summary)))


def _faults(summary: Summary, client_busy: float) -> list[str]:
    faults = []
    if summary.failures:
        kinds = ", ".join(f"{num} {kind}" for kind, num in summary.failures.items())
        faults.append(f"{summary.num_requests - summary.num_ok} of {summary.num_requests} requests failed ({kinds})")
    if summary.num_short:
        faults.append(
            f"{summary.num_short} of {summary.num_ok} answers are shorter than demanded (--min-tokens asks in another way)"
        )
    if summary.num_vacuous:
        faults.append(f"{summary.num_vacuous} of {summary.num_ok} answers hold tokens but next to no text")
    if client_busy > CLIENT_BUSY_LIMIT:
        faults.append(f"the client used {client_busy:.0%} of a core: it may be what was measured")
    return faults


def _remarks(summary: Summary) -> list[str]:
    remarks = []
    if summary.token_sources.get("chunks"):
        remarks.append("the server sent no usage: chunks were counted as tokens, wrong where chunks bundle them")
    if summary.token_sources.get("limit"):
        remarks.append(
            "the server sent no usage: answers that ended for length were taken to have all tokens asked for"
        )
    if summary.num_usage_differs:
        remarks.append(
            f"tokens and chunks differ by more than 2 % in {summary.num_usage_differs} of {summary.num_ok} answers "
            f"({summary.tokens_per_chunk or 0.0:.2f} tokens per chunk): itl is between chunks, tpot between tokens"
        )
    if (summary.chunks_per_read or 0.0) > CHUNKS_PER_READ_LIMIT:
        remarks.append(
            f"{summary.chunks_per_read:.2f} chunks came per read: they were sent together, or the client came late; "
            "itl then tells less than tpot"
        )
    if summary.num_tpot_undefined:
        remarks.append(f"{summary.num_tpot_undefined} answers had fewer than two tokens and have no tpot")
    return remarks
