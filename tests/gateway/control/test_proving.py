"""What a proof says beside its verdict: whose word the reference is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.adapter import attested
from backends.adapter.golden import Golden, read_golden
from gateway.control.ingestion import GOLDEN
from gateway.control.proving import Bench
from tests.gateway.control.adapter_rig import store_version


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    manifest = store_version(tmp_path, "ours")
    return read_golden(tmp_path / manifest.digest / GOLDEN)


def bench(golden: Golden, name: str = "support@1") -> Bench:
    """An engine that serves just what the reference says."""

    async def score(model: str, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        row = golden.adapter if model == name else golden.base
        width = len(golden.texts[0].ids) - 1
        places = [next(i for i, text in enumerate(golden.texts) if list(text.ids) == list(ids)) for ids in texts]
        return [list(row[place * width : (place + 1) * width]) for place in places]

    return Bench(score, "demo")


async def _no_siblings() -> dict[str, Golden]:
    return {}


async def test_a_reference_of_the_publishers_is_told_as_such(golden: Golden) -> None:
    theirs = dataclasses.replace(golden, attested_by=attested.PUBLISHER)
    own, other = [await bench(one).prove("support@1", one, _no_siblings) for one in (golden, theirs)]
    assert own.state == other.state != "failed"
    assert attested.WORDS not in own.detail
    assert other.detail == "; ".join(part for part in (own.detail, attested.WORDS) if part)
