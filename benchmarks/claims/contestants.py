"""Who is measured: an engine over HTTP, static batches on an engine, transformers' `generate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.campaign import Plan, measure_load, warm_up
from benchmarks.child import ChildError
from benchmarks.claims.child import TorchChild
from benchmarks.claims.figures import OUTPUT_TPS, Score, score_of
from benchmarks.client import Client
from benchmarks.loadgen import closed_loop
from benchmarks.loads import ClosedLoad
from benchmarks.metrics import summarise
from benchmarks.target import Target
from benchmarks.traffic.request import Request
from benchmarks.validity import Evidence, judge

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Served:
    """A closed loop against one target."""

    name: str
    target: Target
    plan: Plan

    async def warm_up(self) -> None:
        """Raises WarmUpError."""
        with asking(self.target) as client:
            await warm_up(client, self.plan)

    async def run(self, load: ClosedLoad, turn: int) -> Score:
        """Requests of this turn's seed."""
        with asking(self.target) as client:
            measured = await measure_load(client, self.plan, load, turn, 0)
        return score_of(measured.summary, measured.load.records, measured.verdict.faults)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Static batches on an engine that could do better: as many requests as there are streams, and the next ones when all of them
    have ended.
    """

    name: str
    target: Target
    plan: Plan

    async def warm_up(self) -> None:
        """Raises WarmUpError."""
        with asking(self.target) as client:
            await warm_up(client, self.plan)

    async def run(self, load: ClosedLoad, turn: int) -> Score:
        """The same requests as a closed loop of this turn."""
        requests = load.requests(self.plan.workload, self.plan.seed_of(load.key, turn))
        with asking(self.target) as client:
            runs = [await closed_loop(client, batch, len(batch)) for batch in batches(requests, load.concurrency)]
        records = [record for run in runs for record in run.records]
        summary = summarise(records, sum(run.duration_s for run in runs))
        verdict = judge(summary, max(run.client_busy for run in runs), Evidence(is_synthetic=self.plan.is_synthetic))
        return score_of(summary, records, verdict.faults)


@dataclass(slots=True)
class Generated:
    """transformers' `generate`: padded batches of the best of several sizes, which the warm-up finds."""

    name: str
    child: TorchChild
    plan: Plan
    sizes: tuple[int, ...]
    best: int = 0
    tried: dict[int, float] | None = None
    """Size -> useful tokens a second in the warm-up."""

    async def warm_up(self) -> None:
        """Try one batch of each size; a size that does not fit is passed by. Raises ChildError if none fits."""
        self.tried = {size: await self._batch(self._requests(size, f"size {size}"), size) for size in self.sizes}
        if not any(self.tried.values()):
            raise ChildError(f"no batch of {', '.join(map(str, self.sizes))} fits into the memory")
        self.best = max(self.tried, key=self.tried.__getitem__)

    async def run(self, load: ClosedLoad, turn: int) -> Score:
        """The same requests as a closed loop of this turn, batch after batch."""
        requests = load.requests(self.plan.workload, self.plan.seed_of(load.key, turn))
        if not self.best:
            await self.warm_up()
        return Score({OUTPUT_TPS: await self._batch(requests, self.best)})

    def _requests(self, num: int, seed: str) -> list[Request]:
        return self.plan.workload.requests(num, f"{self.plan.seed}/{seed}")

    async def _batch(self, requests: Sequence[Request], size: int) -> float:
        found = await self.child.ask(
            do="generate", batch=size, ignore_eos=self.plan.workload.ignore_eos, **asked(requests)
        )
        return 0.0 if found.get("out_of_memory") else float(found["useful_tokens"]) / float(found["seconds"])


@contextmanager
def asking(target: Target) -> Iterator[Client]:
    """A client whose connections are closed at the end, whatever that is."""
    client = Client(target, timeout_s=TIMEOUT_S)
    try:
        yield client
    finally:
        client.close()


def asked(requests: Sequence[Request]) -> dict[str, Any]:
    """What the script is told of requests whose prompts are token ids: each prompt, and its answer's most tokens."""
    bodies = [orjson.loads(request.body) for request in requests]
    return {"prompts": [body["prompt"] for body in bodies], "lengths": [body["max_tokens"] for body in bodies]}


def batches(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """In their order; the last one may be smaller."""
    return [list(requests[start : start + size]) for start in range(0, len(requests), size)]
