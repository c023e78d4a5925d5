from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.adapter.store import Store
from backends.base import Identity
from gateway import errors
from gateway.config import Model, Pool
from gateway.control import ingestion, publish
from gateway.control.desired import EngineProof, ProofReport
from gateway.control.ingestion import GOLDEN, KNOWN, AdapterRefused, PublishFailed
from gateway.control.publish import MAX_JOBS, Order, ProofFailed
from tests.backends.adapter.faulty import configured, copy_of
from tests.gateway.control.fake_adapters import FakeAdapters
from tests.gateway.control.publishing import HOST, ORDER, Rig, archive, bases_of, rig


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path / "home") as made:
        yield made


async def test_an_adapter_comes_to_serve_and_every_stage_tells_what_it_took(parts: Rig) -> None:
    before, last = await parts.publish()
    version = last["version"]
    assert parts.core.calls == [f"add {version}", f"prove {version}", "flip support"]
    stages = list(dict.fromkeys(event["stage"] for event in before))
    assert stages == [
        "queue",
        "base",
        "read",
        "lint",
        "canonical",
        "convert",
        "store",
        "reference",
        "candidate",
        "proof",
        "alias",
    ]
    assert {"upload", "child", *stages} == set(last["seconds"])
    assert last["total_s"] == pytest.approx(sum(last["seconds"].values()))
    assert (last["event"], last["alias"], last["is_new"], last["model"]) == ("published", "support", True, "demo")
    assert last["notes"] == []  # its reference is shipped
    assert (parts.home.root / "adapters" / last["digest"] / "adapter.gguf").is_file()
    assert parts.left_behind() == []
    (change,) = parts.core.history("support")
    assert (change.who, change.reason) == ("ann from 127.0.0.1", "published")


async def test_the_same_again_is_the_same_version(parts: Rig) -> None:
    _, first = await parts.publish()
    again, second = await parts.publish()
    assert (second["version"], second["is_new"]) == (first["version"], False)
    assert "convert" not in {event["stage"] for event in again}


async def test_a_form_that_is_missing_or_damaged_is_made_again(parts: Rig) -> None:
    _, first = await parts.publish()
    gguf = parts.home.root / "adapters" / first["digest"] / "adapter.gguf"
    whole = gguf.read_bytes()
    gguf.write_bytes(whole[:-1])
    _, again = await parts.publish(gguf.parent)  # a stored version is an adapter like any other
    assert (again["version"], again["is_new"]) == (first["version"], False)
    assert gguf.read_bytes() == whole


async def test_a_candidate_leaves_the_alias_alone(parts: Rig) -> None:
    _, last = await parts.publish(order=Order("support", "demo", "ann", is_candidate_only=True))
    assert (last["alias"], last["state"]) == (None, "candidate")
    assert parts.core.aliases() == ()


async def test_what_is_refused_says_why_and_leaves_nothing(parts: Rig, tmp_path: Path) -> None:
    broken = copy_of(HOST, tmp_path / "broken")
    configured(use_dora=True, r=4)(broken)
    with pytest.raises(AdapterRefused) as caught:
        await parts.publish(broken)
    assert {"rule", "tensor", "message", "fix"} == set(caught.value.problems[0])
    assert "the adapter is refused:\n" in str(caught.value)
    assert "fix: " in str(caught.value)
    assert parts.core.calls == []
    assert parts.left_behind() == []
    assert Store(parts.home.root / "adapters").versions() == []


async def test_an_archive_that_is_cut_off_is_refused(parts: Rig) -> None:
    async def half() -> AsyncIterator[bytes]:
        async for chunk in archive(HOST):
            yield chunk[: len(chunk) // 2]
            return

    job = await parts.publisher.upload(ORDER, half(), None)
    with pytest.raises(AdapterRefused, match="cut off or damaged"):
        await job.outcome()
    assert parts.left_behind() == []


async def test_a_proof_that_fails_moves_no_alias(tmp_path: Path) -> None:
    async with rig(tmp_path / "home", FakeAdapters("failed")) as parts:
        with pytest.raises(ProofFailed, match="stays a candidate: demo-0: it changes nothing"):
            await parts.publish()
        assert parts.core.aliases() == ()
        assert [version.state for version in parts.core.versions()] == ["candidate"]


async def test_an_engine_that_is_not_ready_yet_is_waited_for(parts: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_RETRY_S", 0.01)
    prove, num_refused = parts.core.prove, 2

    async def starting(version: str) -> ProofReport:
        nonlocal num_refused
        num_refused -= 1
        if num_refused >= 0:
            raise errors.NoEngineReady("demo-0 is starting", retry_after_s=1)
        return await prove(version)

    parts.core.prove = starting  # type: ignore[method-assign]
    before, last = await parts.publish()
    assert [event["text"] for event in before if event["stage"] == "proof"][1:] == ["waiting: demo-0 is starting"] * 2
    assert last["proof"] == "proven"

    monkeypatch.setattr(publish, "ENGINE_WAIT_S", 0.0)
    num_refused = 5
    with pytest.raises(errors.NoEngineReady, match="demo-0 is starting"):
        await parts.publish()
    assert num_refused == 4


def test_what_a_proof_could_not_tell_is_noted() -> None:
    report = ProofReport(
        "a@1",
        "weak",
        (EngineProof("d-0", True, "weak", "as well layer 3 missing"), EngineProof("d-1", True, "proven", "")),
    )
    assert publish._notes("", report) == ["d-0: weak: as well layer 3 missing"]
    bare = ProofReport("a@1", "unattested", (EngineProof("d-0", True, "unattested", "no reference"),))
    assert publish._notes("unattested: why", bare) == ["unattested: why"]
    assert publish._notes("", bare) == ["d-0: unattested: no reference"]


async def test_orders_are_checked_before_anything_is_received(parts: Rig) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("asked for")
        yield b""

    for order, kind, words in (
        (Order("support", "dmeo", ""), errors.ModelNotFound, "did you mean 'demo'"),
        (Order("support@1", "", ""), errors.BadRequest, "letters, digits"),
        (Order("demo", "", ""), errors.Conflict, "name of a model"),
    ):
        with pytest.raises(kind, match=words):
            await parts.publisher.upload(order, never(), None)
    with pytest.raises(errors.BodyTooLarge):
        await parts.publisher.upload(ORDER, never(), 100_000_001)


async def test_a_crowd_is_told_to_come_again(parts: Rig) -> None:
    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    uploads = [asyncio.create_task(parts.publisher.upload(ORDER, slow(), None)) for _ in range(MAX_JOBS)]
    await asyncio.sleep(0.05)
    with pytest.raises(errors.TooManyRequests, match="are being published already") as caught:
        await parts.publisher.upload(ORDER, slow(), None)
    assert caught.value.retry_after_s == 10
    for task in uploads:
        task.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)
    assert parts.left_behind() == []
    assert (await parts.publish())[1]["event"] == "published"  # the places are free again


async def test_a_child_that_is_killed_is_said_so(parts: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" = -c ] && exit 0\nkill -9 $$\n')
    python.chmod(0o755)
    monkeypatch.setattr(ingestion, "choose_python", lambda *_: str(python))
    with pytest.raises(PublishFailed, match=r"could not be stored: .*killed by SIGKILL"):
        await parts.publish()
    monkeypatch.setattr(ingestion, "INGEST_S", 0.5)
    python.write_text("#!/bin/sh\nsleep 100\n")
    with pytest.raises(PublishFailed, match=r"did not end within 0\.5 s"):
        await parts.publish()
    assert parts.left_behind() == []


async def test_a_stop_ends_jobs_and_their_children(parts: Rig) -> None:
    job = await parts.publisher.upload(ORDER, archive(HOST), None)
    await asyncio.sleep(0.2)
    await parts.publisher.close()
    with pytest.raises(errors.InternalError, match="broken off"):
        await job.outcome()
    assert parts.core.calls == []
    assert [name for name in parts.left_behind() if not name.startswith(".work-")] == []
    parts.publisher.start()
    assert parts.left_behind() == []


async def test_a_follower_hears_that_it_goes_on(parts: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "BEAT_S", 0.02)
    before, _ = await parts.publish()
    assert len(before) > len({event["stage"] for event in before})


async def test_a_version_that_nobody_got_to_know_is_removed(parts: Rig) -> None:
    async def refuse(*_: object) -> str:
        raise errors.Conflict("the name is taken")

    add, parts.core.add = parts.core.add, refuse  # type: ignore[method-assign]
    with pytest.raises(errors.Conflict):
        await parts.publish()
    assert parts.ingestion.store.versions() == []
    parts.core.add = add  # type: ignore[method-assign]
    _, last = await parts.publish()
    stray = parts.ingestion.store.version("a" * 64)
    stray.mkdir()
    (stray / "manifest.json").touch()
    parts.publisher.start()  # as after a kill between the disk and the database
    assert parts.ingestion.store.versions() == [last["digest"]]
    (parts.ingestion.store.version(last["digest"]) / KNOWN).unlink()
    parts.publisher.start()  # as after a kill between the database and the mark
    parts.ingestion.remove_strays(known=())  # as with another database: it was known once
    assert parts.ingestion.store.versions() == [last["digest"]]


async def test_references(parts: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are there are taken; where none can be had it is said how to get one. Computing one is `finetune.golden`'s own test."""
    monkeypatch.setattr(ingestion, "shipped_golden", lambda _: None)
    _, last = await parts.publish()
    assert last["notes"] == ["unattested: demo is a bare GGUF; a reference needs its safetensors folder"]
    digest, store = last["digest"], parts.ingestion.store
    folder = bases_of(Model("demo", (Pool("llamacpp", model="demo"),))).facts("demo", [Identity("sha256:0")])
    monkeypatch.setattr(ingestion, "GOLDEN_MODULES", ("no_such_module",))
    reference = await parts.ingestion.reference(folder, digest, lambda _: None)
    assert not reference.is_there
    assert "run `forgegate install trainer`" in reference.note

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"event": "refused", "message": "a strange base"}\'\nexit 2\n')
    python.chmod(0o755)
    monkeypatch.setattr(ingestion, "choose_python", lambda *_: str(python))
    reference = await parts.ingestion.reference(folder, digest, lambda _: None)
    assert reference.note == "unattested: its reference could not be computed: a strange base"
    python.write_text('#!/bin/sh\nwhile [ "$1" != --out ]; do shift; done; echo golden > "$2"\n')
    assert (await parts.ingestion.reference(folder, digest, lambda _: None)).is_there
    attached = store.attachment(digest, GOLDEN)
    assert attached is not None
    assert attached.read_text() == "golden\n"
    python.unlink()
    monkeypatch.undo()
    assert (await parts.ingestion.reference(folder, digest, lambda _: None)).is_there
    assert parts.left_behind() == []
