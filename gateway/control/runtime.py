"""Everything that runs under one `forgegate serve`: brought up in order, taken down in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import uvicorn

from backends.adapter.store import Store as VersionStore
from backends.base import Backend, Identity, Places
from backends.plan import Plan
from backends.probe import Prober
from backends.process import Launcher
from backends.starttimes import StartTimes
from gateway.config import Config, Model, Pool
from gateway.control.adapterapi import AdapterApi
from gateway.control.adapters import Adapters
from gateway.control.advice import Advisor
from gateway.control.aliases import Rules
from gateway.control.app import AdminApi, create_app
from gateway.control.basefacts import Bases
from gateway.control.benchmarkapi import BenchmarkApi
from gateway.control.benchmarkpage import BenchmarkPage
from gateway.control.benchmarks import Benchmarks, target_of
from gateway.control.benchmarks import Means as BenchmarkMeans
from gateway.control.benchmarkshelf import Shelf
from gateway.control.benchmarktraffic import UserTraffic, places_of
from gateway.control.console import Console
from gateway.control.fleet import AdminAccess, Fleet
from gateway.control.gateapi import GateApi
from gateway.control.ingestion import Ingestion
from gateway.control.library import Library
from gateway.control.loadwatch import LoadWatch
from gateway.control.memory import MachineMemory
from gateway.control.publish import Publisher
from gateway.control.recording import for_workers
from gateway.control.room import Rules as StartRules
from gateway.control.sockets import listen, url_of
from gateway.control.spool import Spool
from gateway.control.store import Store
from gateway.control.supervisor import Means, Supervisor
from gateway.control.trial import Trials
from gateway.control.tuneapi import TuneApi
from gateway.control.tuning import Tuning
from gateway.control.watching import Watching
from gateway.control.workers import WorkerPool, WorkerSetup
from gateway.counters import Counters
from gateway.exits import CommandError
from gateway.home import Home, RunInfo
from gateway.snapshot import EngineTrouble, Tally
from gateway.version import version

NUM_LAST_LINES = 5
"""Of an engine's output, shown when it could not be started."""

Pools = list[tuple[Model, Pool, Backend]]


def means_of(config: Config, home: Home) -> Means:
    """This machine's memory, and what is remembered of earlier starts here."""
    rules = StartRules(max_wait_s=config.limits.engine_wait_s)
    return Means(MachineMemory(), StartTimes(home.models / "start-times.json"), rules)


class Runtime:
    """The running whole. `async with await Runtime.open(...)`: whatever was opened is closed, however far it came."""

    def __init__(self, config: Config, home: Home, console: Console, stack: contextlib.AsyncExitStack) -> None:
        self._config = config
        self._home = home
        self._console = console
        self._stack = stack

    @classmethod
    async def open(
        cls,
        config: Config,
        pools: Pools,
        home: Home,
        console: Console,
        plans: Sequence[Plan | None] = (),
        means: Means | None = None,
    ) -> Self:
        """Up to the point where workers listen and engines start. Raises CommandError, BackendError.

        `plans`: of each pool, what its engines take of the memory; none: nothing is known.
        """
        means = means or means_of(config, home)
        async with contextlib.AsyncExitStack() as stack:
            runtime = cls(config, home, console, stack)
            await runtime._bring_up(pools, plans or [None] * len(pools), means)
            runtime._stack = stack.pop_all()
        return runtime

    async def _bring_up(self, pools: Pools, plans: Sequence[Plan | None], means: Means) -> None:
        config, home, stack, console = self._config, self._home, self._stack, self._console
        stack.callback(os.close, home.lock())
        server = config.server
        self._public = listen(server.host, server.port, "endpoint", "--port (server.port)")
        stack.callback(self._public.close)
        admin = listen(server.admin.host, server.admin.port, "admin API", "--admin-port (server.admin.port)")
        stack.callback(admin.close)
        self.url, self.admin_url = url_of(self._public, server.host), url_of(admin, server.admin.host)
        launcher = await Launcher.start()
        stack.push_async_callback(launcher.close)
        prober = Prober()
        stack.push_async_callback(prober.close)
        self._adapters = await self._open_adapters(prober)
        self._benchmarks = await self._open_benchmarks(launcher)
        token_sha256 = hashlib.sha256(home.admin_token().encode()).hexdigest()
        self.fleet = Fleet(
            config, lambda snapshot: self._workers.push(snapshot), adapters=self._adapters.snapshot,
            admin=AdminAccess(self.admin_url, token_sha256), measured=self._benchmarks.measured,
        )  # fmt: skip
        advisor = Advisor(lambda engine_id: self._supervisor.lives[engine_id].backend, console.advice)
        self._supervisor = Supervisor(launcher, prober, self.fleet, home, console, self._adapters, means, advisor)
        for (model, pool, backend), plan in zip(pools, plans, strict=True):
            self._supervisor.add(model, pool, backend, plan)
        self._adapters.summon_by(self._supervisor.on_demand.want, config.limits.engine_wait_s)
        metrics_dir = stack.enter_context(_metrics_dir(home.run))
        self._watching = Watching(self._adapters, console.note, metrics_dir)
        self._workers = self._make_workers(launcher, metrics_dir)
        self._supervisor.on_demand.traffic = self._counters
        stack.push_async_callback(self._workers.kill)
        self._supervisor.start()  # engines load while the workers come up
        stack.push_async_callback(self._supervisor.stop, 0.0)
        watch = LoadWatch(self._supervisor.load, self.fleet.members, metrics_dir, advisor.hear)
        watch.start()
        stack.push_async_callback(watch.close)
        self._page = BenchmarkPage(metrics_dir)
        self._users = UserTraffic(self.fleet.members, self._counters.running, watch.last, _places(pools, plans))
        trials = Trials(launcher, prober, home.logs, self._supervisor.trial_ties)
        tuning = Tuning(self.fleet, self._supervisor.lives, launcher, trials)
        stack.push_async_callback(tuning.close)
        await self._workers.start()
        self._adapters.start()
        self._watching.start()
        stack.push_async_callback(self._watching.close)
        stack.push_async_callback(self._benchmarks.close)
        self._page.write((), self._benchmarks.measured())
        await self._start_admin(admin, self._make_adapter_api(launcher, pools), TuneApi(tuning))
        home.announce(RunInfo(os.getpid(), self.url, self.admin_url))
        stack.callback(home.withdraw)

    async def _open_adapters(self, prober: Prober) -> Adapters:
        """Raises StoreUnusable."""
        config, home = self._config, self._home
        self._store = await asyncio.to_thread(Store.open, config.store or home.database)
        adapters = Adapters(
            self._store, Library(home.adapters), prober, Rules(config.adapters.gate, [model.name for model in config.models]),
            lambda: self.fleet.publish(), config.adapters.require_attestation,
        )  # fmt: skip
        self._stack.push_async_callback(adapters.close)
        return await adapters.open()

    async def _open_benchmarks(self, launcher: Launcher) -> Benchmarks:
        """It is asked of what is brought up after it."""

        async def changed() -> None:
            self._page.write(self._benchmarks.runs(), self._benchmarks.measured())
            await self.fleet.publish()

        means = BenchmarkMeans(
            launcher, busiest=lambda model: self._users.busiest(model), url=self.url, key=self._home.admin_token(),
            find=lambda name: target_of(self.fleet.snapshot(), name), say=self._console.note, changed=changed,
        )  # fmt: skip
        benchmarks = Benchmarks(Shelf(self._home.benchmarks), means)
        await benchmarks.open()
        return benchmarks

    def _make_adapter_api(self, launcher: Launcher, pools: Pools) -> AdapterApi:
        home, rules = self._home, self._config.adapters
        bases = Bases(pools)
        spool = Spool(home.run / "publish", rules.max_upload_bytes)
        ingestion = Ingestion(VersionStore(home.adapters), bases, Places(home.models, home.envs), launcher, spool)
        publisher = Publisher(self._adapters, bases, self._identities, ingestion, spool)
        publisher.start()
        self._stack.push_async_callback(publisher.close)
        return AdapterApi(self._adapters, publisher, rules.roots, self._watching.figures)

    def _identities(self, model: str) -> list[Identity]:
        """What the model's engines have told of their weights so far; where none has, one that runs on demand is started."""
        found = [member.status.identity for member in self.fleet.of_model(model)]
        if not any(identity.digest for identity in found):
            self._supervisor.on_demand.want(model)
        return found

    def _make_workers(self, launcher: Launcher, metrics_dir: Path) -> WorkerPool:
        num_workers, num_slots = self._config.server.workers, len(self._supervisor.lives)
        counters_fd, self._counters = Counters.create(num_slots, num_workers)
        self._stack.callback(os.close, counters_fd)
        self._stack.callback(self._counters.close)
        setup = WorkerSetup(
            listen_fd=self._public.fileno(),
            counters_fd=counters_fd,
            num_workers=num_workers,
            num_slots=num_slots,
            metrics_dir=metrics_dir,
            logs_dir=self._home.logs,
            access_log=self._config.server.access_log,
            conversations=for_workers(self._config.conversations),
        )
        return WorkerPool(
            launcher, setup, self._counters, self.fleet.snapshot(),
            listener=_Ears(self._supervisor, self._adapters, self._watching), on_death=self._console.worker,
        )  # fmt: skip

    async def _start_admin(self, sock: socket.socket, adapters: AdapterApi, tune: TuneApi) -> None:
        api = AdminApi(self.fleet, self._supervisor, self._workers, self._counters)
        server = _AdminServer(
            uvicorn.Config(
                create_app(
                    api, self._home.admin_token(), version(), adapters, tune, GateApi(self._adapters, self._store),
                    BenchmarkApi(self._benchmarks),
                ),
                loop="none", lifespan="off", access_log=False, log_level="warning", timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        task = asyncio.create_task(server.serve(sockets=[sock]), name="admin API")
        self._stack.push_async_callback(_end_server, server, task)

    async def settle(self) -> None:
        """Until the first starts came to an end and an engine is ready, or starts on demand. Raises CommandError when none ever will be."""
        await self._supervisor.settled()
        while not self.fleet.can_serve:
            if self.fleet.is_hopeless:
                raise CommandError("\n".join(["no engine could be started", *self._post_mortem()]))
            self.fleet.changed.clear()
            await self.fleet.changed.wait()

    def _post_mortem(self) -> list[str]:
        lines: list[str] = []
        for member in self.fleet.members.values():
            lines.append(f"engine {member.id}: {member.status.detail}")
            lines += [f"  | {line}" for line in self._supervisor.lives[member.id].log.tail(NUM_LAST_LINES)]
        return lines

    def models(self) -> dict[str, list[str]]:
        """What serves each model, in words, equal replicas counted."""
        shown: dict[str, list[str]] = {}
        for model in self._config.models:
            members = self.fleet.of_model(model.name)
            texts = [m.status.facts.description for m in members if m.status.facts]
            texts += [
                f"{m.kind}, started by the first request" for m in members if m.is_on_demand and not m.status.facts
            ]
            shown[model.name] = [
                f"{n} x {text}" if (n := texts.count(text)) > 1 else text for text in dict.fromkeys(texts)
            ]
        return shown

    async def drain(self) -> None:
        """No new connections; running requests finish within the grace; then the engines are stopped."""
        await self._benchmarks.close()  # its requests are nobody's to be waited for
        self._public.close()  # the workers close theirs: from here on, connections are refused rather than left waiting
        await self._workers.drain(self._config.server.drain_s)
        await self._supervisor.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()


def _places(pools: Pools, plans: Sequence[Plan | None]) -> dict[str, int]:
    """How many requests each engine computes at a time; engines are numbered over all pools of their model."""
    places: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for (model, pool, _), plan in zip(pools, plans, strict=True):
        for _ in range(pool.replicas):
            number = numbers.setdefault(model.name, 0)
            places[f"{model.name}-{number}"] = places_of(pool, plan)
            numbers[model.name] += 1
    return places


class _Ears:
    """Tells each what workers say that concerns it."""

    def __init__(self, supervisor: Supervisor, adapters: Adapters, watching: Watching) -> None:
        self._supervisor = supervisor
        self._adapters = adapters
        self._watching = watching

    def trouble(self, trouble: EngineTrouble) -> None:
        self._adapters.trouble(trouble)
        self._supervisor.trouble(trouble.engine_id)

    def want(self, version: str, worker: int) -> None:
        self._adapters.want(version, worker)

    def want_engine(self, model: str, worker: int) -> None:
        self._supervisor.on_demand.want(model)

    def used(self, versions: Iterable[str]) -> None:
        self._adapters.used(versions)

    def tallied(self, rows: Iterable[Tally]) -> None:
        self._watching.tallied(rows)


class _AdminServer(uvicorn.Server):
    """Signals are `forgegate serve`'s own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _end_server(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait({task}, timeout=3.0)


@contextlib.contextmanager
def _metrics_dir(run: Path) -> Iterator[Path]:
    """prometheus_client's folder for all workers of this run; those of runs that were killed go first."""
    for stale in run.glob("metrics-*"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=run, prefix="metrics-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
