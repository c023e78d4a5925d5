"""The gateway under a chaos campaign, seen from outside: its command, its admin API, its processes in /proc."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from benchmarks.child import Child, ChildError, Launch
from benchmarks.client import Client, Target
from benchmarks.peer_launch import free_port

READY_S = 120.0
SECRET_VARIABLE = b"FORGEGATE_ENGINE_SECRET="
_SAMPLE = re.compile(rb"^(forgegate_\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)
_ENGINE_LABEL = re.compile(rb'engine="[^"]')
_STABLE_S = 5.5
_STOP_WAIT_S = 5.0
_ATTEMPTS = 5


class GatewayError(RuntimeError):
    """It does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that may be killed: a worker or an engine."""

    role: str
    name: str
    pid: int
    is_young: bool = False
    """An engine that has not been ready for long: forgegate takes a row of such deaths for a crash loop."""


class Gateway:
    """One `forgegate serve`, started here."""

    def __init__(
        self,
        workdir: Path,
        num_workers: int,
        pools: Mapping[str, Mapping[str, Any]],
        ready_s: float = READY_S,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """`pools`: each model's one pool, by the model's name; `settings`: what else the configuration says."""
        self.model = next(iter(pools))
        self.ready_s = ready_s
        self.home = workdir / "home"
        self._port = free_port()
        self._admin_port = free_port()
        server = {"port": self._port, "workers": num_workers, "admin": {"port": self._admin_port}}
        models = [{"name": name, "pools": [dict(pool)]} for name, pool in pools.items()]
        config = {"server": server, "models": models, **settings}
        path = workdir / "forgegate.yaml"
        path.write_text(json.dumps(config), "utf-8")  # JSON is YAML
        argv = (sys.executable, "-m", "gateway.cli", "serve", "--config", str(path))
        self._launch = Launch(argv, "/health/ready", {"FORGEGATE_HOME": str(self.home)})
        self._log = workdir / "serve.log"
        self.target = Target("http", "127.0.0.1", self._port)
        self._public = Client(self.target, keep_alive=False, timeout_s=10)
        self._admin: Client | None = None

    def start(self) -> Child:
        """The caller stops it."""
        self.child = Child(self._launch, self._log)
        return self.child

    async def wait_ready(self) -> None:
        """Raises ChildError."""
        await self.child.wait_ready(self._public, self.ready_s)
        await self.wait_admin(self.ready_s)

    async def wait_admin(self, timeout_s: float) -> None:
        """Until its admin API answers, whether or not engines are ready. Raises ChildError."""
        token_file, deadline_s = self.home / "admin-token", time.monotonic() + timeout_s
        while True:
            token = token_file.read_text("ascii").strip() if token_file.exists() else ""
            target = Target("http", "127.0.0.1", self._admin_port, api_key=token or None)
            self._admin = Client(target, keep_alive=False, timeout_s=10)
            if (await self._admin.get("/admin/v1/engines")).status == 200:
                return
            if not self.child.is_running or time.monotonic() > deadline_s:
                raise ChildError(f"forgegate does not answer its admin API\n{self.child.tail()}")
            await asyncio.sleep(0.1)

    @property
    def admin(self) -> Client:
        """Of its admin API, once it is ready."""
        assert self._admin is not None
        return self._admin

    async def workers(self) -> list[dict[str, Any]]:
        """As the admin API lists them."""
        return await self._list("/admin/v1/workers")

    async def engines(self) -> list[dict[str, Any]]:
        """As the admin API lists them."""
        return await self._list("/admin/v1/engines")

    async def victims(self) -> list[Victim]:
        """Every worker and engine that is up and serves."""
        workers = [Victim("worker", str(w["column"]), w["pid"]) for w in await self.workers() if w["state"] == "ready"]
        engines = [
            Victim("engine", e["id"], e["pid"], e["uptime_s"] < _STABLE_S)
            for e in await self.engines()
            if e["state"] == "ready"
        ]
        return workers + engines

    async def samples(self) -> dict[str, float]:
        """The metrics page, summed over labels; `requests` counts only what reached an engine."""
        for _ in range(_ATTEMPTS):  # the worker that is asked may be the next to die
            exchange = await self._public.get("/metrics")
            if exchange.status == 200 and exchange.is_complete:
                break
        else:
            raise GatewayError(f"/metrics: {exchange.failure or exchange.status}")
        totals: dict[str, float] = {"requests": 0.0}
        for name, labels, value in _SAMPLE.findall(exchange.body):
            totals[name.decode()] = totals.get(name.decode(), 0.0) + float(value)
            if name == b"forgegate_requests_total" and _ENGINE_LABEL.search(labels):
                totals["requests"] += float(value)
        return totals

    async def direct(self, engine_id: str) -> Target:
        """Where this engine answers itself, with the secret of its launch. Raises GatewayError."""
        engine = next((engine for engine in await self.engines() if engine["id"] == engine_id), None)
        if engine is None or not engine["url"] or engine["pid"] is None:
            raise GatewayError(f"engine {engine_id} is not up")
        lines = _environment(engine["pid"])
        secret = next((line[len(SECRET_VARIABLE) :] for line in lines if line.startswith(SECRET_VARIABLE)), b"")
        return Target.from_url(engine["url"], secret.decode("ascii"))

    async def command(self, *words: str, timeout_s: float) -> str:
        """What `forgegate WORDS` prints, run against this gateway. Raises GatewayError."""
        argv = (sys.executable, "-m", "gateway.cli", *words)
        environment = {**os.environ, **self._launch.env}
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        try:
            output, _ = await asyncio.wait_for(child.communicate(), timeout_s)
        except TimeoutError as exc:
            child.kill()
            await child.wait()
            raise GatewayError(f"`forgegate {' '.join(words)}` did not end within {timeout_s:g} s") from exc
        text = output.decode("utf-8", "replace").strip()
        if child.returncode != 0:
            raise GatewayError(f"`forgegate {' '.join(words)}` ended with exit code {child.returncode}: {text}")
        return text

    def client_ports(self, pid: int) -> set[int]:
        """Ports of the clients whose connections this worker holds."""
        inodes = set(_socket_inodes(pid))
        found = set()
        for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and int(words[1].rpartition(":")[2], 16) == self._port:
                found.add(int(words[2].rpartition(":")[2], 16))
        return found

    def processes(self) -> list[int]:
        """Everything alive that was started by this gateway, itself included: all of it has its home in the environment."""
        mark = f"FORGEGATE_HOME={self.home}".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in _environment(pid)]

    def kill(self) -> None:
        """SIGKILL for control itself."""
        os.kill(self.child.pid, signal.SIGKILL)

    async def _list(self, path: str) -> list[dict[str, Any]]:
        exchange = await self.admin.get(path)
        if exchange.status != 200:
            raise GatewayError(f"{path}: {exchange.failure or exchange.status}")
        data: list[dict[str, Any]] = orjson.loads(exchange.body)["data"]
        return data


def halt(pid: int) -> bool:
    """SIGSTOP, and wait until it has taken effect; False when the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        deadline_s = time.monotonic() + _STOP_WAIT_S
        while time.monotonic() < deadline_s:
            if _state(pid) == "T":
                return True
            time.sleep(0.001)
    return False


def can_run() -> bool:
    """Whether this system shows what the campaign must see."""
    return Path("/proc/self/environ").exists() and Path("/proc/net/tcp").exists()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _socket_inodes(pid: int) -> list[str]:
    inodes = []
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                link = os.readlink(f"/proc/{pid}/fd/{name}")
                if link.startswith("socket:["):
                    inodes.append(link[8:-1])
    return inodes


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
