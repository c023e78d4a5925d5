"""The plans of all pools: each sees the memory that those before it leave. Printed as a table, or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backends.base import Backend, Tell, untold
from backends.errors import BackendError
from backends.plan import Plan, Use, size_words
from gateway.config import Model, Pool
from gateway.origin import Origin, PoolsRefused


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool with its plan; None where nothing of it runs on this machine."""

    model: str
    engine: str
    what: str
    """The backend's own words."""
    plan: Plan | None


def plan_pools(pools: Sequence[tuple[Model, Pool, Backend]], tell: Tell = untold) -> list[PoolPlan]:
    """In the order of the configuration. Raises PoolsRefused, naming all that cannot be served, or lack memory.

    Engines that run on demand take turns: each may have what those leave that always stay.
    """
    taken: Counter[str] = Counter()
    planned: dict[int, PoolPlan] = {}
    refused: dict[int, tuple[Origin | None, BackendError]] = {}
    for index, (model, pool, backend) in sorted(enumerate(pools), key=lambda item: item[1][1].is_on_demand):
        try:
            what = backend.check(tell)
            plan = backend.plan(taken)
        except BackendError as exc:
            refused[index] = pool.origin, exc
            continue
        if plan is not None and not pool.is_on_demand:
            taken.update(plan.taken())
        words = f"{pool.replicas} x {what}" if not pool.is_on_demand else f"on demand: {what}"
        planned[index] = PoolPlan(model.name, pool.engine, words, plan)
    if refused:
        raise PoolsRefused([refused[index] for index in sorted(refused)])
    return [planned[index] for index in range(len(pools))]


def summary(planned: PoolPlan) -> str:
    """One line; empty where nothing was planned."""
    if planned.plan is None:
        return ""
    notes = "".join(f"; {note}" for note in planned.plan.notes)
    return f"{planned.model}: {planned.plan.summary()}{notes}"


def as_json(pools: Sequence[PoolPlan]) -> list[dict[str, Any]]:
    """With every pool's sum added, so that nobody has to add up."""
    listed = []
    for planned in pools:
        entry = asdict(planned)
        if planned.plan is not None:
            entry["plan"]["options"] = planned.plan.options()
            entry["plan"]["taken_bytes"] = planned.plan.taken()
        listed.append(entry)
    return listed


def as_table(pools: Sequence[PoolPlan]) -> str:
    return "\n".join(line for planned in pools for line in _lines(planned))


def _lines(planned: PoolPlan) -> Iterator[str]:
    yield f"{planned.model}: {planned.what}"
    plan = planned.plan
    if plan is None:
        yield "  nothing to plan: it runs elsewhere"
        return
    width = max((len(pick.option) for pick in plan.picks), default=0)
    for pick in plan.picks:
        yield f"  {pick.option:<{width}}  {pick.value:>7}  {pick.why}"
    if not plan.picks:
        yield "  nothing to pick: all options are given"
    for use in plan.uses:
        yield f"  {_use_line(use, plan.num_engines)}"
    for note in plan.notes:
        yield f"  note: {note}"


def _use_line(use: Use, num_engines: int) -> str:
    parts = {
        "weights": use.weights_bytes, "KV cache": use.kv_bytes, "buffers": use.compute_bytes,
        "adapters": use.adapter_bytes, "process": use.other_bytes,
    }  # fmt: skip
    each = " + ".join(f"{name} {size_words(size)}" for name, size in parts.items() if size)
    shared = ", weights shared" if use.shared_bytes else ""
    total = f" = {size_words(use.total_bytes)}"
    if num_engines > 1:
        total += f", {num_engines} engines{shared}: {size_words(use.of_pool(num_engines))}"
    free = f" of {size_words(use.free_bytes)} free" if use.free_bytes is not None else ""
    return f"{use.device}: {each}{total}{free}"
