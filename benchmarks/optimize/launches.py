"""Real engines: `forgegate serve` on a configuration of our own, on free ports of 127.0.0.1, ended with all that it started.

It has a home of its own in the work folder, so that it disturbs no running forgegate; environments of engines and models are those
of the user's home, by links. What a killed search left running is known by that home, and ended before the next one starts.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.campaign import MeasuredRun, Plan, measure_load
from benchmarks.chaos_gateway import Gateway, GatewayError, can_run
from benchmarks.child import ChildError
from benchmarks.client import Client
from benchmarks.engine_start import engine_of
from benchmarks.loads import ClosedLoad
from benchmarks.metrics import Distribution, outcomes
from benchmarks.optimize.levels import Axis
from benchmarks.optimize.quality import ANSWER_TOKENS
from benchmarks.optimize.trial import DiedError, Engine, Probe, StartError
from benchmarks.statistics.goodput import Goodput, goodput
from benchmarks.statistics.slo import Slo
from benchmarks.transcript import error_message
from benchmarks.workload import Workload

NAME = "candidate"
"""What the model is called while it is measured, and by that its one engine."""
_ENGINE = f"{NAME}-0"
_LOOK_S = 0.1
_AT_ONCE = 8
_LEFTOVER_S = 15.0
_NOISE = re.compile(r"^(?:help|usage):")
_PLACE = re.compile(r"\S+\.yaml:\d+: (?:models\[0\]\.pools\[0\]: )?")
"""In the configuration that is ours, and tells a user nothing."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is measured, and by which load."""

    kind: str
    model: str
    workload: Workload
    slo: Slo
    axis: Axis
    num_requests: int
    """The least of a load at effort 1."""
    start_timeout_s: float
    timeout_s: float
    """Of a request."""
    python: Path | None = None

    def pool(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """For the configuration."""
        pool: dict[str, Any] = {"engine": self.kind, "model": self.model, "options": dict(options)}
        return pool | ({"python": str(self.python)} if self.python else {})


class GatewayLaunches:
    """One gateway after the other, in one folder."""

    def __init__(self, served: Served, folder: Path) -> None:
        self._served = served
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _link_home(folder / "home")

    def check(self, options: Mapping[str, Any]) -> tuple[int, str]:
        """Exit code and error of `forgegate serve --check`: what is wrong with model or engine is known before anything starts."""
        path = self._folder / "check.yaml"
        path.write_text(json.dumps({"models": [{"name": NAME, "pools": [self._served.pool(options)]}]}), "utf-8")
        argv = (sys.executable, "-m", "gateway.cli", "serve", "--config", str(path), "--check")
        env = {**os.environ, "FORGEGATE_HOME": str(self._folder / "home")}
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, check=False)
        return done.returncode, reason_in(done.stderr)

    async def end_leftovers(self) -> int:
        """How many processes of an earlier search were still there; they are gone when this returns."""
        if not can_run():
            return 0
        gateway = self._gateway({})
        left = gateway.processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + _LEFTOVER_S
        while gateway.processes() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - processes of nobody tell no event
            await asyncio.sleep(_LOOK_S)
        for pid in gateway.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(left)

    @asynccontextmanager
    async def launch(self, options: Mapping[str, Any]) -> AsyncIterator[Engine]:
        """Raises StartError."""
        gateway = self._gateway(options)
        child = gateway.start()
        try:
            began_s = time.monotonic()
            await self._wait_ready(gateway)
            start_s = time.monotonic() - began_s
            client = Client(gateway.target, timeout_s=self._served.timeout_s)
            try:
                yield GatewayEngine(self._served, gateway, client, start_s)
            finally:
                client.close()
                await asyncio.sleep(0)
        finally:
            child.stop()

    def _gateway(self, options: Mapping[str, Any]) -> Gateway:
        pool = {**self._served.pool(options), "start_timeout_s": self._served.start_timeout_s}
        return Gateway(self._folder, 1, {NAME: pool}, self._served.start_timeout_s)

    async def _wait_ready(self, gateway: Gateway) -> None:
        deadline_s = time.monotonic() + self._served.start_timeout_s
        try:
            await gateway.wait_admin(self._served.start_timeout_s)
            while (engine := await engine_of(gateway, _ENGINE))["state"] != "ready":
                if engine["state"] in ("failed", "backoff") or engine["num_restarts"]:
                    raise StartError(engine["detail"])  # a start that failed once is not tried again
                if time.monotonic() > deadline_s:
                    raise StartError(
                        f"not ready within {self._served.start_timeout_s:.0f} s; it said: {engine['detail']}"
                    )
                await asyncio.sleep(_LOOK_S)
            await gateway.wait_ready()
        except (ChildError, GatewayError) as exc:
            raise StartError(reason_in(gateway.child.tail(40)) or str(exc)) from exc


class GatewayEngine:
    """One that is ready, asked by way of its gateway, as users ask it."""

    def __init__(self, served: Served, gateway: Gateway, client: Client, start_s: float) -> None:
        self.start_s = start_s
        self._served = served
        self._gateway = gateway
        self._client = client
        self._e2e_s: float | None = None

    async def probe(self, load: float, effort: int, seed: int) -> Probe:
        """Raises DiedError."""
        plan = Plan(self._served.workload, (1,), seed=seed)
        if self._e2e_s is None:  # warms up, and tells how long an answer takes
            warm = await measure_load(self._client, plan, ClosedLoad(_AT_ONCE, _AT_ONCE), repeat=0, order=0)
            self._e2e_s = warm.summary.e2e_s.mean if warm.summary.e2e_s else 0.0
        chosen = self._served.axis.load(load, effort, self._served.num_requests, self._e2e_s)
        began_s = time.monotonic()
        run = await measure_load(self._client, plan, chosen, repeat=effort, order=0)
        if run.summary.failures:
            await self._check_alive()
        self._e2e_s = run.summary.e2e_s.mean if run.summary.e2e_s else self._e2e_s
        return probe_of_run(run, load, self._served.slo, time.monotonic() - began_s)

    async def answer(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Raises DiedError."""
        choices = await self._complete_all(prompts, max_tokens=ANSWER_TOKENS)
        return tuple(str(choice["text"]) if choice else "" for choice in choices)

    async def score(self, texts: Sequence[str]) -> tuple[tuple[float, ...], ...] | None:
        """Raises DiedError."""
        scores = []
        for choice in await self._complete_all(texts, max_tokens=0, echo=True, logprobs=0):
            if choice is None or not choice.get("logprobs"):
                return None
            scores.append(tuple(float(value) for value in choice["logprobs"]["token_logprobs"] if value is not None))
        return tuple(scores)

    async def _complete_all(self, prompts: Sequence[str], **fields: Any) -> list[dict[str, Any] | None]:
        """Some at a time: batches are what is served."""
        choices: list[dict[str, Any] | None] = []
        for begin in range(0, len(prompts), _AT_ONCE):
            some = prompts[begin : begin + _AT_ONCE]
            choices += await asyncio.gather(*(self._complete(prompt=each, temperature=0, **fields) for each in some))
        return choices

    async def _complete(self, **fields: Any) -> dict[str, Any] | None:
        """The one choice; None where the request is refused. Raises DiedError."""
        exchange = await self._client.post("/v1/completions", orjson.dumps({"model": NAME, **fields}))
        if exchange.status == 200 and exchange.is_complete:
            choice: dict[str, Any] = orjson.loads(exchange.body)["choices"][0]
            return choice
        await self._check_alive()
        if exchange.status is None or exchange.status >= 500:
            raise DiedError(exchange.failure.detail if exchange.failure else error_message(exchange.body))
        return None

    async def _check_alive(self) -> None:
        """Raises DiedError where the engine is not the one that was started."""
        try:
            engine = await engine_of(self._gateway, _ENGINE)
        except GatewayError as exc:
            raise DiedError(f"forgegate does not answer any more: {exc}") from exc
        if engine["state"] != "ready" or engine["num_restarts"]:
            raise DiedError(engine["detail"] or f"it was started again ({engine['num_restarts']} times)")


def probe_of_run(run: MeasuredRun, load: float, slo: Slo, took_s: float) -> Probe:
    """A run's records under the SLO."""
    summary = run.summary
    found = goodput(outcomes(run.load.records), slo, max(summary.duration_s, 1e-9))
    faults = (*_missed(found), *run.verdict.faults)
    return Probe(
        load, found.requests_per_s, summary.output_tps, summary.tps_per_user, summary.num_requests,
        sum(summary.failures.values()),
        {str(result.objective): (result.num_missed, result.num) for result in found.objectives},
        {**_latencies("ttft", summary.ttft_user_s), **_latencies("tpot", summary.tpot_s)}, took_s, "; ".join(faults),
    )  # fmt: skip


def _missed(found: Goodput) -> list[str]:
    """Objectives that fewer requests held than promised, as measured."""
    return [
        f"{result.objective} is held by {result.attainment or 0.0:.1%} of {result.num} requests"
        for result in found.objectives
        if result.attainment is None or result.attainment < (result.objective.percentile or 0.0)
    ]


def _latencies(name: str, of: Distribution | None) -> dict[str, float | None]:
    return {f"{name}_p50": of.p50 if of else None, f"{name}_p99": of.p99 if of else None}


def reason_in(log: str) -> str:
    """What forgegate said at last: its error, over as many lines as it has, without its place in our configuration."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _NOISE.match(line)]
    errors = [place for place, line in enumerate(lines) if line.startswith("error:")]
    words = " ".join(lines[errors[-1] :]).removeprefix("error:") if errors else (lines[-1] if lines else "")
    return _PLACE.sub("", words).strip().removeprefix(f"{NAME}: ")


def _link_home(home: Path) -> None:
    """Environments and models of the user's own home, where there are any (gateway/home.py says where they lie)."""
    home.mkdir(parents=True, exist_ok=True)
    theirs = Path(os.environ.get("FORGEGATE_HOME") or "~/.local/share/forgegate").expanduser().absolute()
    for name in ("envs", "models"):
        if (theirs / name).is_dir() and not (home / name).is_symlink() and not (home / name).exists():
            (home / name).symlink_to(theirs / name)


def config_of(served: Served, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's block for `forgegate.yaml`."""
    return {"models": [{"name": name, "pools": [json.loads(json.dumps(served.pool(options)))]}]}
