"""A gateway with adapters, seen from outside: published, moved and watched over its admin API, and its memory in /proc."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.chaos_gateway import READY_S, Gateway, GatewayError
from benchmarks.client import Client, Target
from benchmarks.http1 import Exchange

ADAPTERS_DIR = Path(__file__).parent.parent / "backends" / "demo" / "adapters"
CHANGE_TIMEOUT_S = 600.0
_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class Load:
    """What runs, and what is held, as the gateway tells."""

    num_running: float
    num_tokens: float
    num_adapter_waiting: float
    is_idle: bool
    """The engines', their KV caches included."""

    @property
    def is_none(self) -> bool:
        """Nobody counts a request."""
        return self.is_idle and self.num_running == self.num_tokens == self.num_adapter_waiting == 0


class AdapterGateway(Gateway):
    """One `forgegate serve` whose engines hold adapters."""

    def __init__(
        self, workdir: Path, pools: Mapping[str, Mapping[str, Any]], ready_s: float = READY_S, num_workers: int = 2
    ) -> None:
        super().__init__(workdir, num_workers, pools, ready_s)
        self._num_expected = num_workers + sum(int(pool["replicas"]) for pool in pools.values())
        self._changes: Client | None = None

    async def wait_admin(self, timeout_s: float) -> None:
        """As a gateway's; its changes may take longer than its answers."""
        await super().wait_admin(timeout_s)
        admin: Target = self.admin.target
        self._changes = Client(admin, keep_alive=False, timeout_s=CHANGE_TIMEOUT_S)

    async def is_up(self) -> bool:
        """Every worker and every engine serves."""
        return len(await self.victims()) == self._num_expected

    async def publish(self, folder: Path, name: str) -> dict[str, Any]:
        """For its first model; the last event of the publication, `published`. Raises GatewayError."""
        exchange = await self._change.post(f"/admin/v1/adapters?name={name}&model={self.model}", packed(folder))
        lines = _body_of(exchange, f"publish {name}").splitlines()
        last: dict[str, Any] = orjson.loads(lines[-1])
        if last.get("event") != "published":
            raise GatewayError(f"publish {name}: {lines[-1].decode('utf-8', 'replace')}")
        return last

    async def point(self, alias: str, version: str) -> None:
        """Let the alias serve this version; returns once no request is decided from the old state. Raises GatewayError."""
        body = orjson.dumps({"shares": [{"adapter": version}]})
        _body_of(await self._change.put(f"/admin/v1/aliases/{alias}", body), f"flip {alias}")

    async def rollback(self, alias: str) -> str:
        """Back to what it served before, which is returned. Raises GatewayError."""
        body = _body_of(await self._change.post(f"/admin/v1/aliases/{alias}/rollback", b"{}"), f"roll {alias} back")
        return str(orjson.loads(body)["shares"][0]["adapter"])

    async def free(self, version: str) -> None:
        """No engine holds it; asked for again, it is loaded and proven anew. Raises GatewayError."""
        _body_of(await self._change.post(f"/admin/v1/adapters/{version}/unload", b"{}"), f"free {version}")

    async def forget(self, alias: str, version: str) -> None:
        """Drop the alias and delete the version, its files included. Raises GatewayError."""
        for path in (f"/admin/v1/aliases/{alias}", f"/admin/v1/adapters/{version}"):
            _body_of(await self._change.delete(path), f"delete {path}")

    async def residents(self) -> dict[str, set[str]]:
        """Engine -> the versions that it holds."""
        found: dict[str, set[str]] = {engine["id"]: set() for engine in await self.engines()}
        for version in await self._list("/admin/v1/adapters"):
            for engine in version["engines"]:
                if engine["is_resident"]:
                    found.setdefault(engine["engine"], set()).add(version["name"])
        return found

    async def load(self) -> Load:
        """Of this moment."""
        samples = await self.samples()
        engines = [(engine["num_requests"], engine["load"]) for engine in await self.engines()]
        is_idle = all(
            num == 0 and load and load["num_running"] == load["num_waiting"] == load["kv_usage"] == 0
            for num, load in engines
        )
        return Load(
            samples["forgegate_requests_running"],
            samples["forgegate_outstanding_tokens"],
            samples["forgegate_adapter_waiting"],
            is_idle,
        )

    def memory_bytes(self, pid: int) -> int:
        """Resident memory of a process; 0 when it is gone."""
        try:
            lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)

    @property
    def _change(self) -> Client:
        assert self._changes is not None
        return self._changes


def packed(folder: Path) -> bytes:
    """The adapter in `folder` as a tar archive. Raises GatewayError when it holds none."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _FILES:
            if not (folder / name).is_file():
                raise GatewayError(f"{folder}: holds no {name}")
            archive.add(folder / name, name)
    return buffer.getvalue()


def _body_of(exchange: Exchange, what: str) -> bytes:
    if exchange.failure is not None or exchange.status != 200:
        reason = exchange.failure or f"{exchange.status} {exchange.body[:500].decode('utf-8', 'replace')}"
        raise GatewayError(f"{what}: {reason}")
    return exchange.body
