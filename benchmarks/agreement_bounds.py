"""How far another definition may move a figure, and which way: what a proviso of `foreign.definitions` can account for at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.foreign.definitions import GUIDELLM, VLLM, metric_of

CLIENT_S = 0.02
"""A client's own work before a request, its connection, and a last chunk of its own: one that needs longer measures itself."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Of a tool's figure, held against ours. What is 0 the definition cannot do."""

    less: float = 0.0
    """Share of ours by which it may be smaller."""
    more: float = 0.0
    """As `less`, larger."""
    more_s: float = 0.0
    """And by how many seconds more."""

    def holds(self, ours: float, theirs: float) -> bool:
        """Whether a difference of that size and direction may be the definition's."""
        return ours * (1 - self.less) <= theirs <= ours * (1 + self.more) + self.more_s


BOUNDS: Mapping[str, Mapping[str, Bound]] = {
    VLLM: {
        "ttft_s": Bound(less=0.5, more_s=CLIENT_S),  # a role that comes sooner still is a server's that answers before it computes
        "tpot_s": Bound(more=0.1),  # one step more of ten at least
        "itl_s": Bound(less=0.5),  # two gaps of no length beside as many real ones
        "e2e_s": Bound(more_s=CLIENT_S),
    },
    GUIDELLM: {
        "output_tps": Bound(0.25, 0.25),  # a run has four rounds of requests at least, of which a window may lose one
        "request_rate": Bound(0.25, 0.25),
        "tpot_s": Bound(0.25, 0.25),  # answers of one length are asked for: some end early
        "e2e_s": Bound(more_s=CLIENT_S),
    },
}  # fmt: skip


def may_explain(figure: str, tool: str, ours: float, theirs: float) -> bool:
    """Whether the tool's definition of this figure can account for the difference to ours."""
    found = BOUNDS.get(tool, {}).get(metric_of(figure))
    return found is not None and found.holds(ours, theirs)
