"""Which interpreter works on an upload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from backends.adapter.store import Store
from backends.base import Identity, Places
from backends.errors import EngineUnavailable
from gateway.config import Model, Pool
from gateway.control.ingestion import KNOWN, Ingestion
from gateway.control.spool import Spool
from tests.gateway.control.adapter_rig import store_version
from tests.gateway.control.publishing import bases_of
from tests.processes import stub_python

KNOWN_WEIGHTS = [Identity("sha256:" + "ab" * 32, is_source=True)]


def argv(tmp_path: Path, *pools: Pool) -> tuple[str, ...]:
    bases = bases_of(Model("demo", pools))
    places = Places(tmp_path / "models", tmp_path / "envs")
    unused: Any = None
    ingestion = Ingestion(Store(tmp_path / "adapters"), bases, places, unused, Spool(tmp_path / "spool", 1 << 20))
    facts = bases.facts("demo", KNOWN_WEIGHTS)
    return ingestion._ingest_argv(facts, tmp_path / "upload.tar", tmp_path / "base.json")


def vllm(python: str | None) -> Pool:
    return Pool("vllm", model="demo", python=python, options={"lora": {}})


def test_for_vllm_alone_any_that_has_numpy_does(tmp_path: Path) -> None:
    assert argv(tmp_path, vllm(sys.executable))[0] == sys.executable
    assert argv(tmp_path, vllm(None))[0] == sys.executable
    assert argv(tmp_path, vllm("nice -n 5 /opt/vllm/bin/python"))[0] == sys.executable  # it may lead into a container


def test_its_own_goes_first_where_it_has_what_it_takes(tmp_path: Path) -> None:
    stub = stub_python(tmp_path)
    assert argv(tmp_path, vllm(str(stub)))[0] == str(stub)
    assert "--engines" in argv(tmp_path, vllm(str(stub)))


def test_llamacpps_makes_ggufs_for_both(tmp_path: Path) -> None:
    stub = stub_python(tmp_path)
    made = argv(tmp_path, vllm(sys.executable), Pool("llamacpp", model="demo", python=str(stub)))
    assert made[0] == str(stub)
    assert made[made.index("--engines") + 1] == "vllm,llamacpp"
    with pytest.raises(EngineUnavailable, match="/no/python cannot be run"):
        argv(tmp_path, Pool("llamacpp", model="demo", python="/no/python"))


def test_marks_survive_that_versions_are_read_only(tmp_path: Path) -> None:
    manifest = store_version(tmp_path / "adapters", "a")
    unused: Any = None
    places = Places(tmp_path / "models", tmp_path / "envs")
    ingestion = Ingestion(Store(tmp_path / "adapters"), unused, places, unused, Spool(tmp_path / "spool", 1 << 20))
    ingestion.mark(manifest.digest)
    folder = tmp_path / "adapters" / manifest.digest
    assert (folder / KNOWN).exists()
    assert folder.stat().st_mode & 0o222 == 0
    ingestion.mark("cd" * 32)  # gone: whoever loads it is told
    ingestion.remove_strays({manifest.digest})
    assert folder.is_dir()
