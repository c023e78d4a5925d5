"""The gateway killed at every failpoint: what the next one finds is the state before or after, never between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.adapter.pack import pack
from backends.demo.signatures import ADAPTERS_DIR
from gateway.control.failpoints import POINTS, VARIABLE
from tests.processes import ROOT, Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]

CONFIG = """
server: {port: 0, workers: 1, admin: {port: 0}}
models: [{name: demo, pools: [{engine: llamacpp, model: demo, options: {max_adapters: 2}}]}]
"""
AT_START = {"reconcile.listed", "reconcile.loaded", "reconcile.proven"}
"""An engine that comes up passes them, so the gateway does not live to say that it is ready."""


class Gateway(Served):
    """With the few commands that are needed here."""

    def call(self, method: str, path: str, **options: Any) -> Any:
        token = (self.home / "admin-token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        reply = httpx.request(method, self.admin_url + path, headers=headers, timeout=60, **options)
        assert reply.status_code == 200, reply.text
        return reply

    def publish(self, name: str) -> str:
        """As a candidate."""
        params = {"name": name, "candidate_only": "true"}
        content = b"".join(pack(ADAPTERS_DIR / name).chunks())
        reply = self.call("POST", "/admin/v1/adapters", params=params, content=content)
        last = reply.text.splitlines()[-1]
        assert '"published"' in last, last
        return str(self.version(name))

    def version(self, name: str) -> str | None:
        found = self.call("GET", "/admin/v1/adapters").json()["data"]
        return next((version["name"] for version in found if version["name"].startswith(f"{name}@")), None)

    def point(self, *versions: str) -> None:
        shares = [{"adapter": version} for version in versions]
        self.call("PUT", "/admin/v1/aliases/support", json={"shares": shares})

    def rollback(self) -> None:
        self.call("POST", "/admin/v1/aliases/support/rollback", json={})

    def remove(self, version: str) -> None:
        self.call("DELETE", f"/admin/v1/adapters/{version}")

    def shares(self) -> tuple[str, ...]:
        """What the alias serves, once everything that tells of it says the same."""
        found = self.call("GET", "/admin/v1/adapters/support").json()
        shares = tuple(share["adapter"] for share in found["alias"]["shares"])
        assert tuple(share["adapter"] for share in found["history"][0]["shares"]) == shares
        assert all(version["state"] == "live" for version in found["versions"] if version["name"] in shares)
        answer = httpx.post(
            f"{self.url}/v1/completions", json={"model": "support", "prompt": "x", "max_tokens": 1}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-forgegate-model"] in shares
        return shares


class Stage:
    """One home, and gateways that die in it one after another."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.config = folder / "forgegate.yaml"
        self.config.write_text(CONFIG, encoding="utf-8")

    def start(self, point: str = "") -> Gateway:
        return Gateway(self.home, "--config", str(self.config), env={VARIABLE: point})

    def killed_at(self, point: str, check: Callable[[Gateway], object], work: Callable[[Gateway], object]) -> None:
        """A gateway that finds what `check` expects, and dies at `point` in `work`, or before it is ready."""
        with self.start(point) as gateway:
            if point not in AT_START:
                gateway.wait_ready()
                check(gateway)
                with suppress(httpx.TransportError):
                    work(gateway)
            assert gateway.wait(60.0) == -signal.SIGKILL, f"it did not pass {point}"

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.home / "adapters").iterdir() if len(path.name) != 64]


def serves(*versions: str) -> Callable[[Gateway], None]:
    def check(gateway: Gateway) -> None:
        assert gateway.shares() == versions

    return check


def has_tiger(is_known: bool) -> Callable[[Gateway], None]:
    def check(gateway: Gateway) -> None:
        assert (gateway.version("tiger") is not None) is is_known

    return check


@pytest.mark.timeout(400)
def test_killed_at_every_failpoint_the_state_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.start() as gateway:
        gateway.wait_ready()
        a, b = gateway.publish("host"), gateway.publish("pilot")
        gateway.point(a)
    steps: list[tuple[str, Callable[[Gateway], object], Callable[[Gateway], object]]] = [
        ("alias.moving", lambda gateway: gateway.point(b), serves(a)),
        ("alias.moved", lambda gateway: gateway.point(b), serves(b)),
        ("alias.told", lambda gateway: gateway.point(a, b), serves(a, b)),
        ("alias.moving", lambda gateway: gateway.rollback(), serves(a, b)),
        ("alias.moved", lambda gateway: gateway.rollback(), serves(b)),
        *((point, serves(b), serves(b)) for point in sorted(AT_START)),
        ("publish.stored", lambda gateway: gateway.publish("tiger"), has_tiger(False)),
        ("publish.recording", lambda gateway: gateway.publish("tiger"), has_tiger(False)),
        ("publish.recorded", lambda gateway: gateway.publish("tiger"), has_tiger(True)),
        ("reconcile.evicted", lambda gateway: gateway.publish("tiger"), has_tiger(True)),
        ("publish.proven", lambda gateway: gateway.publish("tiger"), has_tiger(True)),
        ("remove.recorded", lambda gateway: gateway.remove(str(gateway.version("tiger"))), has_tiger(False)),
    ]
    assert {point for point, _, _ in steps} == set(POINTS)
    check: Callable[[Gateway], object] = serves(a)
    for point, work, after in steps:
        stage.killed_at(point, check, work)
        check = after
    with stage.start() as gateway:
        gateway.wait_ready()
        check(gateway)
        serves(b)(gateway)
        c = gateway.publish("tiger")  # whatever lay about is no hindrance
        gateway.point(c)
        assert gateway.shares() == (c,)
    assert stage.leftovers() == []


def test_a_failpoint_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve"], cwd=ROOT, capture_output=True, text=True, timeout=30,
        env={**os.environ, "FORGEGATE_HOME": str(tmp_path), VARIABLE: "nowhere"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such failpoint" in done.stderr
