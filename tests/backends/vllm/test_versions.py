"""One table per version, and each name in it is one that this version has."""

from __future__ import annotations

import dataclasses

import pytest

from backends.base import parse_metrics
from backends.vllm.versions import TABLES, V0_26, V0_32, Table, table_of
from tests.backends.vllm.recorded import installed, metrics_page

RECORDED = {
    "num_running": 3.0, "num_waiting": 2.0, "kv_usage": 0.25, "num_preemptions": 1.0, "num_prompt_tokens": 34.0, "num_cached_tokens": 16.0,
    "num_generated_tokens": 30.0, "num_drafts": 1.0, "num_draft_tokens": 4.0, "num_accepted_tokens": 3.0,
}  # fmt: skip
"""What the recorded pages hold."""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.words)
def test_every_flag_is_the_versions(table: Table) -> None:
    assert set(table.flags.values()) <= set(installed(table.words).flags)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.words)
def test_every_metric_is_on_the_versions_page(table: Table) -> None:
    page = metrics_page(table.words)
    samples, names = parse_metrics(page), dataclasses.asdict(table.metrics)
    assert {field: samples[names[field]] for field in RECORDED} == RECORDED
    assert f'{table.metrics.running_adapters_label}="pilot@abc"' in page
    assert table.metrics.lora_info in samples
    assert set(names) == {*RECORDED, "lora_info", "running_adapters_label"}


@pytest.mark.parametrize(
    ("version", "table"),
    [
        ("0.26.0", V0_26),
        ("0.32.0+cpu", V0_32),
        ("v0.32.1.dev3+g123", V0_32),
        ("0.28.2", V0_26),
        ("0.40.0", V0_32),
        ("1.0", V0_32),
        ("0.9.1", V0_26),
        ("dev", V0_32),
    ],
)
def test_other_versions_take_the_nearest_table(version: str, table: Table) -> None:
    assert table_of(version) is table
