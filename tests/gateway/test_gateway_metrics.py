"""The metrics table and its shortcut into prometheus_client."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gateway.accesslog import AccessLine
from gateway.counters import Counters
from gateway.metrics import ENGINES_FILE, SECONDS, TABLE, Metrics, add_to_histogram
from gateway.snapshot import Adapter, Alias, Engine, Model, Share, Snapshot


def page_of(observe: bool, values: list[float]) -> bytes:
    registry = CollectorRegistry()
    child = Histogram("h", "help", ("a",), registry=registry, buckets=SECONDS).labels("x")
    if observe:
        for value in values:
            child.observe(value)
    else:
        buckets = [0] * (len(SECONDS) + 1)
        for value in values:
            buckets[bisect_left(SECONDS, value)] += 1
        add_to_histogram(child, buckets, sum(values))
    lines = generate_latest(registry).split(b"\n")
    return b"\n".join(line for line in lines if b"_created" not in line)


def test_adding_in_bulk_equals_observing() -> None:
    dice = random.Random(5)
    values = [dice.choice([0.0, 0.001, 0.25, 300.0, 1000.0, dice.random() * 2]) for _ in range(500)]
    values = [round(value * 1024) / 1024 for value in values]  # sums are exact in any order
    assert page_of(True, values) == page_of(False, values)


def line(model: str, status: int, resolved: str = "m@1", engine: str = "m-0", **rest: Any) -> AccessLine:
    return AccessLine(
        time=0.0,
        request_id="r",
        client="::1",
        method="POST",
        path="/v1/x",
        model=model,
        resolved=resolved,
        engine=engine,
        status=status,
        duration_ms=200.0,
        bytes=10,
        **rest,
    )


def test_every_row_of_the_table_is_exposed() -> None:
    fd, counters = Counters.create(2, 1)
    writer = Counters.attach(fd, 2, 1, 0)
    writer.add(1, 3, 70)
    writer.set_accepting(True)
    writer.add_connections(4)
    metrics = Metrics(CollectorRegistry())
    metrics.observe([line("m", 200, ttfb_ms=100.0), line("m", 200), line("m", 499, error="client_disconnected")])
    metrics.observe([line("made up", 404, resolved="", engine="", error="model_not_found")])
    metrics.observe([line("support", 200, resolved="support@1", base="m", adapter_wait_ms=30.0)])
    metrics.observe([line(f"support@{n}", 200, resolved=f"support@{n}", base="m") for n in range(3)])
    metrics.observe([line("x@1", 200, resolved="x@1")])  # a base model may be called so
    metrics.observe_connect("m-0", 0.001)
    metrics.count_retry("m-0")
    metrics.count_conversations({"written": 3, "queue_full": 1})
    metrics.observe([line("m", 200, engine="m-1", engine_wait_ms=31000.0)])
    metrics.observe([line("m", 503, engine="", engine_wait_ms=0.0, error="no_engine_ready")])
    metrics.set_waiting(2, 3)
    engine = Engine("m-0", 1, "llamacpp", "ready", "h", 1)
    snapshot = Snapshot(
        9,
        (Model("m", "m", (engine,)), Model("alias", "m", (engine,))),
        (
            Adapter("support@1", "m", ("m-0",)),
            Adapter("support@2", "m"),
            Adapter("secret@3", "m", ("m-0",), is_candidate=True),
        ),
        (Alias("support", "m", (Share("support@1", 3), Share("support@2", 1))),),
    )
    for _ in range(2):  # a second scrape must not count again
        page = metrics.expose(snapshot, counters).decode()
    for row in TABLE:
        assert f"\n# TYPE {row.name}" in "\n" + page, row.name
        assert f"\n{row.name}" in page.replace("# ", ""), row.name
    assert 'forgegate_requests_total{engine="m-0",model="m",status="200"} 2.0' in page
    assert 'forgegate_conversations_total{outcome="written"} 3.0' in page
    assert 'forgegate_time_to_first_byte_seconds_count{engine="m-0",model="m"} 1.0' in page
    assert 'forgegate_request_duration_seconds_sum{engine="m-0",model="m"} 0.6' in page
    assert 'forgegate_disconnects_total{model="m"} 1.0' in page
    assert "made up" not in page
    assert 'forgegate_requests_running{engine="m-0"} 3.0' in page
    assert 'forgegate_outstanding_tokens{engine="m-0"} 70.0' in page
    assert 'forgegate_connections{worker="0"} 4.0' in page
    assert page.count("forgegate_engine_state{") == 2
    assert "forgegate_snapshot_version 9.0" in page
    assert 'forgegate_requests_total{engine="m-0",model="support",status="200"} 1.0' in page
    assert 'forgegate_requests_total{engine="m-0",model="support@*",status="200"} 3.0' in page
    assert 'forgegate_requests_total{engine="m-0",model="x@1",status="200"} 1.0' in page
    assert 'forgegate_adapter_wait_seconds_sum{model="support"} 0.03' in page
    assert page.count("forgegate_adapter_resident{") == 1
    assert "secret@3" not in page, "a candidate is the admin's alone, and the page is open"
    assert 'forgegate_alias_share{adapter="support@2",alias="support"} 0.25' in page
    assert "forgegate_adapter_waiting 2.0" in page
    assert "forgegate_engine_waiting 3.0" in page
    assert 'forgegate_engine_wait_seconds_sum{model="m"} 31.0' in page
    assert 'forgegate_engine_wait_seconds_count{model="m"} 2.0' in page


def test_what_a_dead_workers_predecessor_had_waiting_is_forgotten(tmp_path: Path) -> None:
    code = (
        "import sys; from gateway import metrics; from gateway.counters import Counters; from gateway.snapshot import *;"
        "metrics.continue_files_of(0); made = metrics.Metrics(); fd, counters = Counters.create(1, 1);"
        "sys.stdout.write(made.expose(Snapshot(1), counters).decode()); made.set_waiting(3, 4)"
    )
    for _ in range(2):
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        page = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
        assert "\nforgegate_adapter_waiting 0.0\n" in page
        assert "\nforgegate_engine_waiting 0.0\n" in page


def test_the_page_ends_with_what_control_wrote_of_the_engines(tmp_path: Path) -> None:
    code = (
        "import sys; from gateway import metrics; from gateway.counters import Counters; from gateway.snapshot import *;"
        "metrics.continue_files_of(0); made = metrics.Metrics(); fd, counters = Counters.create(1, 1);"
        "sys.stdout.write(made.expose(Snapshot(1), counters).decode())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}

    def page() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "forgegate_snapshot_version" in page(), "before control's first look there is nothing to append"
    (tmp_path / ENGINES_FILE).write_text('# TYPE forgegate_engine_x gauge\nforgegate_engine_x{engine="m-0"} 1.0\n')
    assert page().endswith('\n# TYPE forgegate_engine_x gauge\nforgegate_engine_x{engine="m-0"} 1.0\n')
