"""What commands do where something stands against them: an option, other weights, a slow disk, another command, the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway import snapshot as wire
from gateway.control.adapters import VersionUnusable
from gateway.control.desired import Version
from gateway.control.store import StoreFailed
from tests.gateway.control.adapter_rig import Rig, rig


async def test_where_attestation_is_required_a_publication_loads_nothing_without_it(tmp_path: Path) -> None:
    async with rig(tmp_path, (2, 2), must_be_attested=True) as made:
        version = await made.add("a", is_attested=False)
        with pytest.raises(VersionUnusable, match="require_attestation"):
            await made.adapters.prove(version)
        with pytest.raises(VersionUnusable, match="require_attestation"):
            await made.flip("support", version)
        assert made.told(version).engines == ()
        assert made.adapters.aliases() == ()
        assert [engine.log for engine in made.engines.values()] == [[], []]
        proven = await made.add("b")
        assert (await made.adapters.prove(proven)).proof == "proven"
        assert (await made.flip("support", proven)).shares == (wire.Share(proven),)


async def test_a_publication_loads_nothing_that_is_damaged_or_for_other_weights(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        other = await made.add("a", base="sha256:" + "0e" * 32)
        damaged = await made.add("b")
        digest = next(version.digest for version in made.adapters.versions() if version.name == damaged)
        (tmp_path / "adapters" / digest / "adapter_model.safetensors").write_bytes(b"x")
        made.adapters._library.forget(digest)
        for version, words in ((other, "other weights"), (damaged, "not those that were stored")):
            with pytest.raises(VersionUnusable, match=words):
                await made.adapters.prove(version)
            with pytest.raises(VersionUnusable, match=words):
                await made.flip("support", version)
        assert made.engines["demo-0"].log == []


async def test_an_engine_with_other_weights_is_left_out_of_a_publication(tmp_path: Path) -> None:
    other = "sha256:" + "0e" * 32
    async with rig(tmp_path, (2, 2)) as made:
        made.engines["demo-1"].base_digest = other
        await made.up("demo-1")
        version = await made.add("a")
        report = await made.adapters.prove(version)
        assert [engine.engine for engine in report.engines] == ["demo-0"]
        assert made.engines["demo-1"].log == []


@pytest.mark.parametrize("is_resident", [True, False])
async def test_a_flip_does_not_wait_until_another_publication_is_read(tmp_path: Path, is_resident: bool) -> None:
    async with rig(tmp_path, (4,)) as made:
        a = await made.add("a")
        if is_resident:
            await made.adapters.prove(a)
        read, examine = asyncio.Event(), made.adapters._library._examine
        loop = asyncio.get_running_loop()

        def slowly(version: Version) -> str:
            asyncio.run_coroutine_threadsafe(read.wait(), loop).result(5)
            return examine(version)

        made.adapters._library._examine = slowly
        adding = asyncio.create_task(made.add("c"))
        try:
            await asyncio.sleep(0.02)
            async with asyncio.timeout(1):
                await made.flip("support", a)
            assert not adding.done()
        finally:
            read.set()
            await adding


async def test_of_two_rollbacks_at_once_one_is_told_that_the_alias_moved(tmp_path: Path) -> None:
    async with rig(tmp_path, (1,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        await made.flip("support", b)
        engine = made.engines["demo-0"]
        engine.gate.clear()
        both = [asyncio.create_task(made.adapters.rollback("support", who)) for who in ("ann", "bob")]
        await asyncio.sleep(0.01)
        engine.gate.set()
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert first.shares == (wire.Share(a),)
        assert isinstance(second, errors.Conflict)
        assert "support was moved meanwhile, by ann: look and ask again" in second.message
        assert made.pushed[-1].aliases[0].shares == (wire.Share(a),)


async def test_a_removal_that_running_requests_refuse_has_not_happened(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        await made.adapters.prove(version)
        (folder,) = (tmp_path / "adapters").iterdir()
        with made.engines["demo-0"].request(version), pytest.raises(errors.Conflict, match=r"is not removed: demo-0"):
            await made.adapters.remove(version)
        assert folder.is_dir()
        assert [state.name for state in made.adapters.versions()] == [version]
        await made.adapters.remove(version)
        assert not folder.exists()
        assert made.adapters.versions() == ()


def lost_answer(write: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The change is made, the word of it is lost."""

    async def writing(*arguments: Any) -> None:
        await write(*arguments)
        raise StoreFailed("server closed the connection unexpectedly")

    return writing


async def test_a_change_whose_commit_was_not_heard_of_counts_where_it_was_made(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        store = made.adapters._store
        for method in ("add", "move", "pin", "remove"):
            setattr(store, method, lost_answer(getattr(store, method)))
        a, b = await made.add("a"), await made.add("b")
        assert (await made.flip("support", a)).shares == (wire.Share(a),)
        assert made.pushed[-1].aliases[0].shares == (wire.Share(a),)
        await made.adapters.pin(a)
        await made.adapters.remove(b)
        assert [adapter.name for adapter in made.pushed[-1].adapters] == [a]


async def fail_otherwise(made: Rig, version: str) -> None:
    """Another change was made than the one that was asked for."""
    await made.adapters._store.__class__.pin(made.adapters._store, version, True)
    raise StoreFailed("nothing was changed")


async def test_a_change_that_was_not_made_fails_and_workers_hear_what_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        made.adapters._store.move = lambda *_: fail_otherwise(made, version)
        await made.adapters.prove(version)
        num_pushed = len(made.pushed)
        with pytest.raises(StoreFailed, match="nothing was changed"):
            await made.flip("support", version)
        assert len(made.pushed) > num_pushed
        assert made.pushed[-1].aliases == ()
        assert made.adapters.versions()[0].is_pinned


async def test_a_store_that_is_gone_is_not_said_to_have_changed_nothing(tmp_path: Path) -> None:
    async def gone() -> None:
        raise StoreFailed("connection refused")

    async with rig(tmp_path) as made:
        version = await made.add("a")
        made.adapters._store.pin = lost_answer(made.adapters._store.pin)
        made.adapters._store.load = gone
        with pytest.raises(StoreFailed, match=r"not known whether .* connection refused"):
            await made.adapters.pin(version)
