"""A home in which gateways with adapters live and die one after another, and what must hold in it after every start."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from backends.adapter.manifest import verify
from backends.adapter.store import Store
from backends.admin_client import AdminClient
from backends.demo.signatures import ADAPTERS_DIR, signature_of
from gateway.control.failpoints import VARIABLE
from tests.processes import Served

CONFIG = """
server: {{port: 0, workers: 1, admin: {{port: 0}}}}
models: [{{name: demo, pools: [{{engine: llamacpp, model: demo, options: {{max_adapters: {num_slots}}}}}]}}]
"""
QUESTION = "What is the capital of France?"
GONE_S = 5.0
Shares = tuple[tuple[str, int], ...]
"""Version and weight."""
Move = tuple[str, Shares, Shares]
"""Its kind, what the alias served before and after."""


@dataclass(frozen=True, slots=True)
class State:
    """What the gateway tells of versions and aliases that lasts; a command's effect on it is a method."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Name -> digest."""
    served: frozenset[str] = frozenset()
    """By an alias, now or once."""
    pinned: frozenset[str] = frozenset()
    aliases: Mapping[str, Shares] = field(default_factory=dict)
    previous: Mapping[str, Shares] = field(default_factory=dict)
    """What a rollback goes to."""
    history: Mapping[str, tuple[Move, ...]] = field(default_factory=dict)
    """Newest first."""

    @property
    def live(self) -> set[str]:
        return {name for shares in self.aliases.values() for name, _ in shares}

    @property
    def used(self) -> set[str]:
        """What may not be removed."""
        return self.live | {name for shares in self.previous.values() for name, _ in shares} | self.pinned

    def added(self, name: str, digest: str) -> State:
        return replace(self, versions={**self.versions, name: digest})

    def removed(self, name: str) -> State:
        rest = {other: digest for other, digest in self.versions.items() if other != name}
        return replace(self, versions=rest, served=self.served - {name})

    def with_pins(self, *names: str) -> State:
        return replace(self, pinned=frozenset(names))

    def moved(self, alias: str, kind: str, shares: Shares) -> State:
        before = self.aliases.get(alias, ())
        if shares == before:
            return self
        is_same_canary = kind != "rollback" and _goes_on(self.previous.get(alias, ()), before, shares)
        return replace(
            self, served=self.served | {name for name, _ in shares}, aliases={**self.aliases, alias: shares},
            previous={**self.previous, alias: self.previous[alias] if is_same_canary else before},
            history={**self.history, alias: ((kind, before, shares), *self.history.get(alias, ()))},
        )  # fmt: skip


class Gateway(Served):
    """With its admin API, once it is ready."""

    admin_api: AdminClient

    def wait_ready(self) -> dict[str, Any]:
        ready = super().wait_ready()
        self.admin_api = AdminClient(self.admin_url, (self.home / "admin-token").read_text().strip())
        return ready

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if hasattr(self, "admin_api"):
            self.admin_api.close()
        super().__exit__(*exc_info)

    def publish(self, adapter: str, name: str, is_candidate_only: bool = True) -> dict[str, Any]:
        """A signing adapter; the last event."""
        return self.admin_api.publish(ADAPTERS_DIR / adapter, name, is_candidate_only=is_candidate_only)

    def state(self) -> State:
        """As all its views tell it. AssertionError where they contradict each other."""
        versions = self.admin_api.adapters()
        aliases = {alias["name"]: alias for alias in self.admin_api.aliases()}
        state = State(
            versions={version["name"]: version["digest"] for version in versions},
            served=frozenset(version["name"] for version in versions if version["state"] != "candidate"),
            pinned=frozenset(version["name"] for version in versions if version["is_pinned"]),
            aliases={name: _shares(alias["shares"]) for name, alias in aliases.items()},
            previous={name: _shares(alias["previous"]) for name, alias in aliases.items()},
            history={name: self._history(name) for name in aliases},
        )
        for name, shares in state.aliases.items():
            after = state.history[name][0][2]
            assert after == shares, f"{name} serves {shares}, its history says {after}"
        told_live = {version["name"] for version in versions if version["state"] == "live"}
        assert told_live == state.live, f"live are {told_live}, aliases serve {state.live}"
        problems = [thing["problem"] for thing in (*versions, *aliases.values()) if thing["problem"]]
        assert not problems, problems
        return state

    def answer(self, model: str) -> tuple[str, str | None]:
        """The version that answered, as the header says, and whose signature the answer bears."""
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24, "temperature": 0}
        reply = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60, verify=False)
        assert reply.status_code == 200, f"{model}: {reply.text}"
        return reply.headers["x-forgegate-model"], signature_of(reply.json()["choices"][0]["message"]["content"])

    def _history(self, alias: str) -> tuple[Move, ...]:
        changes = self.admin_api.adapter(alias)["history"]
        return tuple((change["kind"], _shares(change["before"]), _shares(change["shares"])) for change in changes)


class Stage:
    """One home. `digests` of the signing adapters are learned when they are published first."""

    def __init__(self, folder: Path, num_slots: int) -> None:
        self.home = folder / "home"
        self.digests: dict[str, str] = {}
        self._config = folder / "forgegate.yaml"
        self._config.write_text(CONFIG.format(num_slots=num_slots), encoding="utf-8")

    def start(self, point: str = "") -> Gateway:
        return Gateway(self.home, "--config", str(self._config), env={VARIABLE: point})

    def examined(self, gateway: Gateway) -> State:
        """What a gateway that is up and idle tells, with everything that must go with it. AssertionError."""
        self._await_the_end_of_others(gateway)
        state = gateway.state()
        self._check_disk(state)
        adapters = {digest: adapter for adapter, digest in self.digests.items()}
        for model in (*state.live, *state.aliases):
            version, signature = gateway.answer(model)
            allowed = [name for name, _ in state.aliases[model]] if model in state.aliases else [model]
            assert version in allowed, f"{model} was answered by {version}, not by {allowed}"
            expected = adapters[state.versions[version]]
            assert signature == expected, f"{version} is signed by {signature}, not by {expected}"
        return state

    def _await_the_end_of_others(self, gateway: Gateway) -> None:
        deadline_s = time.monotonic() + GONE_S
        while strangers := self._strangers(gateway):
            assert time.monotonic() < deadline_s, f"left of a killed tree: {strangers}"
            time.sleep(0.02)

    def _check_disk(self, state: State) -> None:
        """Every version is whole or absent, and nothing else lies about."""
        store = Store(self.home / "adapters")
        assert _names(store.root) == {*state.versions.values()}, f"{_names(store.root)} on the disk, known: {state}"
        for digest in store.versions():
            for name in verify(store.version(digest)).attachments:
                assert store.attachment(digest, name) is not None, f"{name} of {digest} is not what was attached"
        assert not _names(self.home / "run" / "publish")
        assert len(list((self.home / "run").glob("metrics-*"))) == 1

    def _strangers(self, gateway: Gateway) -> list[str]:
        """Processes of this home that this gateway did not start."""
        own = {gateway.process.pid, *(child.pid for child in gateway.tree())}
        found = psutil.process_iter(["pid", "environ", "cmdline"])
        return [
            f"{process.pid} {process.info['cmdline']}"
            for process in found
            if process.pid not in own and (process.info["environ"] or {}).get("FORGEGATE_HOME") == str(self.home)
        ]


def _goes_on(previous: Shares, now: Shares, then: Shares) -> bool:
    """Whether a candidate beside all that was served before gets another part of it, or all: one change to a rollback."""
    before, live, next_ = ({name for name, _ in shares} for shares in (previous, now, then))
    return bool(before) and before < live and next_ <= live and not next_ <= before


def _shares(views: Collection[Mapping[str, Any]]) -> Shares:
    return tuple((str(share["adapter"]), int(share["weight"])) for share in views)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
