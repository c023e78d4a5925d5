"""What lies on the disk is looked at from time to time, and before an engine is given it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from backends.adapter import manifest as manifests
from gateway.control.desired import Version
from gateway.control.inspection import FULL_EVERY, Inspection
from gateway.control.library import Library
from tests.gateway.control.adapter_rig import rig, store_version
from tests.gateway.control.test_library import version_of

WEIGHTS = "adapter_model.safetensors"


class Looked:
    """A library of two versions, and what was taken off."""

    def __init__(self, root: Path) -> None:
        self.library = Library(root)
        self.versions = [version_of(store_version(root, label)) for label in ("a", "b")]
        self.taken_off: list[str] = []
        self.inspection = Inspection(self.library, lambda: self.versions, self._take_off)

    async def _take_off(self, version: Version) -> None:
        self.taken_off.append(version.name)

    def weights(self, number: int) -> Path:
        return self.library.store.version(self.versions[number].digest) / WEIGHTS


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path / "adapters")


async def test_a_version_that_changed_is_found_at_the_next_look(looked: Looked) -> None:
    await looked.inspection.round()
    assert looked.taken_off == []
    looked.weights(1).write_bytes(b"x")
    await looked.inspection.round()
    assert looked.taken_off == [looked.versions[1].name]
    assert "its files are not those that were stored" in looked.library.known_problem(looked.versions[1])
    assert looked.library.known_problem(looked.versions[0]) == ""


async def test_files_are_read_again_only_where_they_changed(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    verify = manifests.verify
    monkeypatch.setattr(manifests, "verify", lambda folder: (read.append(folder.name), verify(folder))[1])
    for _ in range(3):
        await looked.inspection.round()
    assert sorted(read) == sorted(version.digest for version in looked.versions)
    os.utime(looked.weights(0), ns=(1, 1))
    await looked.inspection.round()
    assert read[2:] == [looked.versions[0].digest]


async def test_each_is_read_whole_in_one_round_of_many(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may change bytes and no time."""
    await looked.inspection.round()
    read: list[str] = []
    verify = manifests.verify
    monkeypatch.setattr(manifests, "verify", lambda folder: (read.append(folder.name), verify(folder))[1])
    for _ in range(FULL_EVERY):
        await looked.inspection.round()
    assert sorted(read) == sorted(version.digest for version in looked.versions)


async def test_a_mended_one_is_whole_again(looked: Looked) -> None:
    content = looked.weights(0).read_bytes()
    looked.weights(0).write_bytes(b"x")
    await looked.inspection.round()
    looked.weights(0).write_bytes(content)
    await looked.inspection.round()
    assert looked.library.known_problem(looked.versions[0]) == ""


async def test_a_directory_is_held_against_its_digest_when_an_engine_is_given_it(looked: Looked) -> None:
    version = looked.versions[0]
    assert await looked.library.file(version, "") == looked.weights(0).parent
    looked.weights(0).write_bytes(b"x")
    told = await looked.library.file(version, "")
    assert isinstance(told, str)
    assert "its files are not those that were stored" in told
    looked.weights(0).unlink()
    assert "No such file" in str(await looked.library.file(version, ""))


async def test_a_damaged_version_goes_off_the_engines_and_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        await made.adapters.prove(version)
        assert version in made.engines["demo-0"].held
        found = next(item for item in made.adapters.versions() if item.name == version)
        (made.home / "adapters" / found.digest / WEIGHTS).write_bytes(b"x")
        await made.adapters.inspect()
        assert version not in made.engines["demo-0"].held
        assert "its files are not those that were stored" in made.told(version).refusal


async def test_rounds_come_by_themselves_until_it_is_closed(looked: Looked) -> None:
    looked.inspection = Inspection(looked.library, lambda: looked.versions, looked._take_off, interval_s=0.01)
    looked.weights(0).write_bytes(b"x")
    looked.inspection.start()
    async with asyncio.timeout(3):
        while not looked.taken_off:
            await asyncio.sleep(0.01)
    looked.inspection.close()
    await asyncio.sleep(0.05)
    num_before = len(looked.taken_off)
    await asyncio.sleep(0.05)
    assert len(looked.taken_off) == num_before
