"""The watch in a whole `forgegate serve`: two workers, an engine that turns bad for one version, control killed in between."""

from __future__ import annotations

import asyncio
import itertools
import shlex
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.admin_client import AdminClient
from gateway.control.desired import Version
from gateway.control.store import Store
from gateway.home import Home
from tests.gateway.control.adapter_rig import store_version
from tests.processes import Served, eventually, write_gguf

pytestmark = pytest.mark.slow
BASE = "sha256:" + "ba" * 32
STUB = Path(__file__).with_name("adapter_stub.py")
RULE = {"max_error_share": 0.05, "max_ttft_ratio": 100, "min_requests": 60, "window_s": 60}


def config(folder: Path, bad: Path) -> Path:
    gguf, python = write_gguf(folder / "stub.gguf", BASE), folder / "python"
    stub = shlex.join([sys.executable, str(STUB), "--bad", str(bad)])
    answers = '[ "$2" = -c ] && exit 0\n[ "$3" = backends.llamacpp.binding.devices ] && echo "[]" && exit 0'
    python.write_text(f'#!/bin/sh\n{answers}\nshift 3\nexec {stub} "$@"\n')
    python.chmod(0o755)
    path = folder / "forgegate.yaml"
    path.write_text(
        "server: {port: 0, workers: 2, admin: {port: 0}}\nmodels:\n  - name: demo\n    pools:\n"
        f"      - {{engine: llamacpp, model: {gguf}, python: {python}, options: {{max_adapters: 3}}}}\n"
    )
    return path


async def fill(home: Path) -> list[str]:
    """Two versions in the store and on the disk, which nothing serves yet."""
    places = Home(home)
    places.ensure()
    store = Store.open(places.database)
    names = []
    for label in ("good", "other"):
        told = store_version(places.adapters, label, is_attested=False)
        names.append(f"support@{told.short}")
        await store.add(Version(names[-1], told.digest, "demo", BASE, 8, 100, "ann", 1.0))
    await store.close()
    return names


def ask(served: Served, num: int) -> Counter[int]:
    def one(number: int) -> int:
        body = {"model": "support", "messages": [], "user": str(number)}
        return client.post(f"{served.url}/v1/chat/completions", json=body).status_code

    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(8) as users:
        return Counter(users.map(one, range(num)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_rules_outlive_a_killed_control_and_a_bad_version_goes_back(tmp_path: Path, home: Path) -> None:
    bad = tmp_path / "bad"
    path = config(tmp_path, bad)
    a, b = asyncio.run(fill(home))
    with Served(home, "--config", str(path)) as served:
        served.wait_ready()
        with admin(served) as client:
            client.point("support", {a: 1}, "ann")
            client.watch("support", RULE, "ann")
        served.signal(signal.SIGKILL)
        served.wait()
    with Served(home, "--config", str(path)) as served:
        served.wait_ready()
        with admin(served) as client:
            (alias,) = client.aliases()
            assert {name: alias["watch"][name] for name in RULE} == RULE
            assert ask(served, 100) == {200: 100}
            client.point("support", {b: 1}, "ann")
            assert ask(served, 200) == {200: 200}  # a healthy one is left alone
            figures = eventually(lambda: counted(client, b, 200))
            assert (figures["num_errors"], figures["ttft_s"] > 0) == (0, True)
            assert serves(client) == b

            bad.write_text(b)
            found: Counter[int] = Counter()
            for _ in itertools.takewhile(lambda _: serves(client) == b, range(100)):
                found += ask(served, 20)
            change = client.adapter("support")["history"][0]
            assert (change["kind"], change["who"], change["shares"]) == (
                "auto-rollback",
                "watch",
                [{"adapter": a, "weight": 1}],
            )
            assert change["reason"].startswith("errors: ")
            assert ask(served, 100) == {200: 100}
            assert set(found) <= {200, 500}
            note = served.wait_for("note")
            assert f"alias support went back to {a}: errors: " in note["detail"]
            page = eventually(lambda: metrics(served, 'forgegate_adapter_auto_rollbacks_total{alias="support"} 1.0'))
            assert f'forgegate_adapter_window_requests{{adapter="{b}",alias="support"}}' in page


def admin(served: Served) -> AdminClient:
    return AdminClient(served.admin_url, (served.home / "admin-token").read_text().strip())


def serves(client: AdminClient) -> str:
    return str(client.aliases()[0]["shares"][0]["adapter"])


def counted(client: AdminClient, version: str, num: int) -> dict[str, Any] | None:
    """Its figures, once so many requests were heard of."""
    told = {figures["adapter"]: figures for figures in client.adapter("support")["figures"]}
    return told[version] if version in told and told[version]["num_requests"] == num else None


def metrics(served: Served, line: str) -> str:
    page = httpx.get(f"{served.url}/metrics", timeout=20).text
    return page if line in page else ""
