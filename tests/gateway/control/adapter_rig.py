"""The core of adapters with a real store, real files and real proofs; the engines are in memory and keep `backends.base.AdapterCalls`."""

from __future__ import annotations

import asyncio
import hashlib
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from backends.adapter import manifest as manifests
from backends.adapter.golden import Golden, to_bytes
from backends.adapter.manifest import BaseRef, Manifest, Uploaded
from backends.adapter.probe import Text, probe_id
from backends.base import Address, Facts, HeldAdapter, Identity
from backends.errors import AdapterRefused, NoSlot, ProbeFailed
from backends.status import State, Status
from gateway import snapshot as wire
from gateway.control.adapters import Adapters
from gateway.control.aliases import Rules
from gateway.control.library import GOLDEN, Library
from gateway.control.store import Store

BASE = "sha256:" + "ba" * 32
FILE = "adapter.gguf"
NUM_TEXTS, NUM_TOKENS = 4, 12
NOTICED_S = 0.02
_CHANCE = random.Random(7)
TEXTS = tuple(Text(tuple(_CHANCE.randrange(100) for _ in range(NUM_TOKENS)), 1) for _ in range(NUM_TEXTS))
BASE_ROW = array("f", (_CHANCE.gauss(-3, 1) for _ in range(NUM_TEXTS * (NUM_TOKENS - 1))))


def adapter_row(label: str, scale: float = 1.0) -> array[float]:
    chance = random.Random(label)
    return array("f", (base + scale * chance.gauss(0, 1) for base in BASE_ROW))


def store_version(root: Path, label: str, *, is_attested: bool = True, base: str = BASE) -> Manifest:
    """A whole version on the disk, told apart from others by `label`; its GGUF holds the label, too."""
    files = {"adapter_model.safetensors": label.encode(), "adapter_config.json": b"{}"}
    digests = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
    digest = manifests.version_digest(digests, base, "sha256:00")
    golden = Golden(
        base, digest, probe_id(TEXTS), NUM_TEXTS, TEXTS, BASE_ROW, adapter_row(label),
        {"the scale is x2": adapter_row(label, 2.0)},
    )  # fmt: skip
    attached = {FILE: label.encode(), **({GOLDEN: to_bytes(golden)} if is_attested else {})}
    uploaded = Uploaded(8, 8.0, False, False, ["F32"], {}, {}, [], "", "demo", {})
    told = Manifest(
        1, digest, BaseRef("demo", base, "sha256:00", "LlamaForCausalLM"), 8, ["q_proj"], [0], 1, 100, len(label), digests,
        uploaded, [], {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in attached.items()},
    )  # fmt: skip
    folder = root / digest
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**files, **attached}.items():
        (folder / name).write_bytes(content)
    (folder / manifests.MANIFEST).write_bytes(manifests.encode(told))
    return told


@dataclass
class FakeEngine:
    """One engine over its launches. What it serves under a name is what lay in the file when it was loaded, or what `serves` said."""

    id: str
    num_slots: int
    base_digest: str = BASE
    launch: int = 0
    is_alive: bool = True
    held: dict[str, str] = field(default_factory=dict)
    """What is served under a name: a label, or `` for the base."""
    leaving: dict[str, object] = field(default_factory=dict)
    """What of it takes no new requests, with the unloading that waits for its last one."""
    running: dict[str, int] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    """Names that it does not load."""
    serves: dict[str, str] = field(default_factory=dict)
    """By label: what the next load of it serves instead."""
    log: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: loads take until it is set."""
    num_scored: int = 0
    score_s: float = 0.0
    """How long scores take."""

    def __post_init__(self) -> None:
        self.gate.set()

    def restart(self) -> None:
        self.launch += 1
        self.is_alive = True
        self.held.clear()
        self.leaving.clear()
        self.running.clear()

    def die(self) -> None:
        self.is_alive = False

    @contextmanager
    def request(self, name: str) -> Iterator[None]:
        """Runs on the version that it began with."""
        launch = self.launch
        self.running[name] = self.running.get(name, 0) + 1
        try:
            yield
        finally:
            if launch == self.launch:
                self.running[name] -= 1

    def take_back(self, name: str, unloading: object) -> None:
        """It serves again, if it is this unloading by which it leaves."""
        if self.leaving.get(name) is unloading:
            del self.leaving[name]

    @property
    def status(self) -> Status:
        address = Address("127.0.0.1", 1, path_prefix=f"{self.id}#{self.launch}")
        identity = Identity(self.base_digest, True)
        return Status(State.READY, "", address, "s", 1, facts=Facts("x", 64, "base"), identity=identity)


class FakeCalls:
    """`AdapterCalls`; `call` and `fetch` are what the fake prober gives: an engine and a launch of it."""

    file_name = FILE

    async def load(self, call: Any, name: str, path: Path) -> None:
        engine = await self._alive(call)
        launch = engine.launch
        await engine.gate.wait()
        await self._alive(call)
        if engine.leaving.pop(name, None):
            engine.log.append(f"take back {name}")
            return
        if name in engine.refuses:
            raise AdapterRefused(f"{name} does not fit")
        if name not in engine.held and len(engine.held) >= engine.num_slots:
            raise NoSlot(f"all {engine.num_slots} are taken")
        assert launch == engine.launch
        engine.log.append(f"load {name}")
        label = path.read_text()
        engine.held[name] = engine.serves.get(label, label)

    async def unload(self, call: Any, name: str, timeout_s: float) -> None:
        engine = await self._alive(call)
        unloading = object()
        if name in engine.held:
            engine.leaving[name] = unloading
        try:
            await self._wait_for_last(call, name)
            if name in engine.held and engine.leaving.get(name) is not unloading:
                raise AdapterRefused(f"{name} was loaded again")
        except BaseException:
            # An engine notices a little later that nobody waits any more.
            asyncio.get_running_loop().call_later(NOTICED_S, engine.take_back, name, unloading)
            raise
        engine.log.append(f"unload {name}")
        engine.held.pop(name, None)
        engine.leaving.pop(name, None)

    async def _wait_for_last(self, call: Any, name: str) -> None:
        engine = await self._alive(call)
        for _ in range(20):
            if not engine.running.get(name) or name not in engine.leaving:
                return
            await asyncio.sleep(0.005)
            await self._alive(call)
        raise AdapterRefused(f"{name} is still used by requests")

    async def resident(self, fetch: Any) -> Mapping[str, HeldAdapter]:
        engine = await self._alive(fetch)
        return {name: HeldAdapter(engine.running.get(name, 0), name in engine.leaving) for name in engine.held}

    async def score(self, call: Any, model: str, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        engine = await self._alive(call)
        if model != "base" and (model not in engine.held or model in engine.leaving):
            raise AdapterRefused(f"no model {model}")
        await asyncio.sleep(engine.score_s)
        await self._alive(call)
        label = "" if model == "base" else engine.held[model]
        row = adapter_row(label) if label else BASE_ROW
        engine.num_scored += len(texts)
        width = NUM_TOKENS - 1
        begins = [width * [known.ids[: len(text)] for known in TEXTS].index(tuple(text)) for text in texts]
        return [list(row[begin : begin + len(text) - 1]) for begin, text in zip(begins, texts, strict=True)]

    async def _alive(self, where: tuple[FakeEngine, int]) -> FakeEngine:
        await asyncio.sleep(0)
        engine, launch = where
        if not engine.is_alive or engine.launch != launch:
            raise ProbeFailed("connection refused")
        return engine


class FakeProber:
    def __init__(self, engines: Mapping[str, FakeEngine]) -> None:
        self._engines = engines

    def call(self, address: Address, secret: str) -> Any:
        engine_id, _, launch = address.path_prefix.partition("#")
        return self._engines[engine_id], int(launch)

    def fetch(self, address: Address, secret: str, timeout_s: float) -> Any:
        return self.call(address, secret)


@dataclass
class Rig:
    home: Path
    engines: dict[str, FakeEngine]
    adapters: Adapters
    pushed: list[wire.Snapshot] = field(default_factory=list)
    on_push: Any = None

    async def push(self) -> tuple[int, ...]:
        adapters, aliases = self.adapters.snapshot()
        self.pushed.append(wire.Snapshot(len(self.pushed), adapters=adapters, aliases=aliases))
        if self.on_push is not None:
            self.on_push(self.pushed[-1])
        await asyncio.sleep(0)
        return ()

    def told(self, name: str, at: int = -1) -> wire.Adapter:
        """As the newest snapshot has it, or the one pushed as number `at`."""
        return next(adapter for adapter in self.pushed[at].adapters if adapter.name == name)

    async def up(self, engine_id: str) -> None:
        """As the supervisor does when an engine is ready."""
        await self.adapters.equip(engine_id, self.engines[engine_id].status)
        self.adapters.ready(engine_id)
        await self.push()

    async def down(self, engine_id: str) -> None:
        self.engines[engine_id].die()
        self.adapters.down(engine_id)
        await self.push()

    async def add(self, label: str, name: str = "support", **options: Any) -> str:
        manifest = store_version(self.home / "adapters", label, **options)
        return await self.adapters.add(manifest, name, "demo", "ann")

    async def flip(self, alias: str, *versions: str) -> Any:
        return await self.adapters.point(alias, [wire.Share(version) for version in versions], "ann")

    async def settled(self) -> None:
        """Until nothing goes on beside."""
        async with asyncio.timeout(5):
            while self.adapters._residents.tasks:
                await asyncio.sleep(0.001)

    async def want(self, name: str) -> wire.Adapter:
        """As a worker does whose request waits: looks at each snapshot, beginning with the newest; returns what it hears at last."""
        self.adapters.used([name])
        at = len(self.pushed) - 1
        if not (found := self.told(name)).engines and not found.refusal:
            self.adapters.want(name, 0)
        async with asyncio.timeout(5):
            while not found.engines and not found.refusal:
                while at + 1 == len(self.pushed):
                    await asyncio.sleep(0.001)
                at += 1
                found = self.told(name, at)
        return found


@asynccontextmanager
async def rig(home: Path, num_slots: Sequence[int] = (2,), is_up: bool = True, **options: Any) -> Any:
    """`num_slots`: of each engine. `options`: of `Adapters`, and of its rules."""
    engines = {f"demo-{index}": FakeEngine(f"demo-{index}", slots) for index, slots in enumerate(num_slots)}
    gate = options.pop("gate", "warn")
    adapters = Adapters(
        Store.open(home / "forgegate.db"), Library(home / "adapters"), FakeProber(engines), Rules(gate, ["demo"]),
        lambda: made.push(), **options,
    )  # fmt: skip
    made = Rig(home, engines, adapters)
    for engine in engines.values():
        backend: Any = SimpleNamespace(adapters=FakeCalls(), num_adapter_slots=engine.num_slots)
        adapters.add_engine(engine.id, "demo", backend)
    await adapters.open()
    adapters.start()
    try:
        for engine_id in engines if is_up else ():
            await made.up(engine_id)
        yield made
    finally:
        await adapters.close()
