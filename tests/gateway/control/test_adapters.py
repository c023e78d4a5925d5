from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path

import pytest

from gateway import errors
from gateway import snapshot as wire
from gateway.control import adapters
from gateway.control.adapters import VersionUnusable
from gateway.control.ingestion import KNOWN
from gateway.control.library import GOLDEN
from tests.gateway.control.adapter_rig import BASE, FakeCalls, rig, store_version


async def test_a_flip_proves_its_version_before_any_worker_hears_of_the_alias(tmp_path: Path) -> None:
    async with rig(tmp_path, (2, 2)) as made:
        version = await made.add("a")
        assert made.told(version).is_candidate
        assert not made.told(version).engines
        change = await made.flip("support", version)
        first = next(snapshot for snapshot in made.pushed if snapshot.aliases)
        assert first.adapters[0].engines  # resident and proven where the alias is first named
        assert (change.kind, change.before, change.gate, change.who) == ("flip", (), "ungated", "ann")
        await made.settled()
        told = made.told(version)
        assert told.engines == ("demo-0", "demo-1")  # prefetched on the other replica
        assert (told.proof, told.is_candidate, told.gate) == ("proven", False, "ungated")
        (state,) = made.adapters.versions()
        assert (state.state, [engine.proof for engine in state.engines]) == ("live", ["proven", "proven"])


async def test_the_same_flip_again_is_no_change(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        first = await made.flip("support", version)
        num_pushed = len(made.pushed)
        assert await made.flip("support", version) == first
        assert len(made.pushed) == num_pushed
        assert len(made.adapters.history("support")) == 1


async def test_rollback_goes_to_what_was_before_and_back_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        with pytest.raises(errors.Conflict, match="nothing to go back to"):
            await made.adapters.rollback("support", "ann")
        await made.flip("support", b)
        assert {v.name: v.state for v in made.adapters.versions()} == {a: "former", b: "live"}
        assert (await made.adapters.rollback("support", "bob")).shares == (wire.Share(a),)
        assert (await made.adapters.rollback("support", "bob")).shares == (wire.Share(b),)
        assert [c.kind for c in made.adapters.history("support")] == ["rollback", "rollback", "flip", "flip"]


async def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        await made.adapters.point("support", [wire.Share(a, 9), wire.Share(b, 1)], "bob", reason="canary")
        await made.adapters.pin(b)
        before = (made.adapters.aliases(), made.adapters.history("support"), made.adapters.versions())
    async with rig(tmp_path, is_up=False) as again:
        assert (again.adapters.aliases(), again.adapters.history("support")) == before[:2]
        assert [(v.name, v.state, v.is_pinned) for v in again.adapters.versions()] == [
            (a, "live", False),
            (b, "live", True),
        ]
        assert not any(engine for v in again.adapters.versions() for engine in v.engines)
        await again.up("demo-0")  # what should be there is there before it takes traffic
        assert set(again.engines["demo-0"].held) == {a, b}
        assert again.told(a).engines == again.told(b).engines == ("demo-0",)


async def test_a_restarted_engine_frees_strangers_and_proves_anew(tmp_path: Path) -> None:
    async with rig(tmp_path, (3,)) as made:
        a = await made.add("a")
        await made.flip("support", a)
        await made.down("demo-0")
        assert made.told(a).engines == ()
        engine = made.engines["demo-0"]
        engine.restart()
        engine.held["stranger"] = "x"
        engine.log.clear()
        await made.up("demo-0")
        assert engine.log == ["unload stranger", f"load {a}"]
        assert made.told(a).engines == ("demo-0",)


async def test_what_fails_its_proof_is_quarantined_there_and_refused_with_the_reason(tmp_path: Path) -> None:
    async with rig(tmp_path, (2, 2)) as made:
        version = await made.add("a")
        for engine in made.engines.values():
            engine.serves["a"] = ""
        report = await made.adapters.prove(version)
        assert report.proof == "failed"
        assert "base model" in report.engines[0].detail
        with pytest.raises(VersionUnusable, match=r"failed its proof on demo-0.*failed its proof on demo-1"):
            await made.flip("support", version)
        assert made.adapters.aliases() == ()
        told = await made.want(version)
        assert told.engines == ()
        assert "the engine serves the base model" in told.refusal
        assert all(version not in engine.held for engine in made.engines.values())
        made.engines["demo-1"].serves.clear()
        num_loads = len(made.engines["demo-1"].log)
        assert (await made.want(version)).refusal
        assert len(made.engines["demo-1"].log) == num_loads  # nothing tries by itself
        await made.down("demo-1")
        made.engines["demo-1"].restart()
        await made.up("demo-1")
        assert (await made.want(version)).engines == ("demo-1",)


async def test_proven_anew_by_command_a_quarantine_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        made.engines["demo-0"].serves["a"] = "b"
        assert (await made.adapters.prove(version)).proof == "failed"
        made.engines["demo-0"].serves.clear()
        report = await made.adapters.prove(version)
        assert [(e.engine, e.is_resident, e.proof) for e in report.engines] == [("demo-0", True, "proven")]


async def test_a_sibling_that_is_served_instead_is_named(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.adapters.prove(a)
        made.engines["demo-0"].serves["b"] = "a"
        report = await made.adapters.prove(b)
        assert report.engines[0].detail == f"the engine serves {a} instead"


async def test_without_a_reference_it_is_unattested_until_it_has_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a", is_attested=False)
        assert (await made.adapters.prove(version)).proof == "unattested"
        assert made.told(version).proof == "unattested"
        assert await made.add("a") == version
        assert (await made.adapters.prove(version)).proof == "proven"


async def test_attestation_can_be_required(tmp_path: Path) -> None:
    async with rig(tmp_path, must_be_attested=True) as made:
        version = await made.add("a", is_attested=False)
        with pytest.raises(VersionUnusable, match="require_attestation"):
            await made.flip("support", version)
        assert "require_attestation" in (await made.want(version)).refusal
        assert made.engines["demo-0"].log == []


async def test_the_base_is_scored_once_for_each_launch(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.adapters.prove(await made.add("a"))
        first = made.engines["demo-0"].num_scored
        await made.adapters.prove(await made.add("b"))
        assert made.engines["demo-0"].num_scored - first < first


async def test_a_refusal_that_may_pass_expires_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.loads.REFUSED_RETRY_S", 0.05)
    async with rig(tmp_path) as made:
        version = await made.add("a")
        made.engines["demo-0"].refuses.add(version)
        assert "does not fit" in (await made.want(version)).refusal
        made.engines["demo-0"].refuses.clear()
        async with asyncio.timeout(2):
            while made.told(version).refusal:
                await asyncio.sleep(0.01)
        assert (await made.want(version)).engines == ("demo-0",)


async def test_with_no_engine_up_a_want_is_refused_and_a_command_told_so(tmp_path: Path) -> None:
    async with rig(tmp_path, is_up=False) as made:
        version = await made.add("a")
        assert "no engine of demo is ready" in (await made.want(version)).refusal
        with pytest.raises(errors.NoEngineReady, match="no engine of demo is ready"):
            await made.flip("support", version)
        await made.up("demo-0")
        assert made.told(version).refusal == ""
        assert (await made.flip("support", version)).shares == (wire.Share(version),)


async def test_an_engine_that_dies_while_it_loads_hangs_nobody(tmp_path: Path) -> None:
    async with rig(tmp_path, (1, 1)) as made:
        version = await made.add("a")
        first = next(iter(made.engines.values()))
        for engine in made.engines.values():
            engine.gate.clear()
        waiting = asyncio.create_task(made.want(version))
        await asyncio.sleep(0.01)
        made.engines["demo-1"].gate.set()
        await made.down(first.id)
        assert (await waiting).engines == ("demo-1",)


async def test_an_engine_that_says_it_has_not_got_it_is_believed(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        await made.want(version)
        made.engines["demo-0"].held.clear()
        made.adapters.trouble(wire.EngineTrouble("demo-0", "adapter_absent"))
        await made.settled()
        assert made.told(version).engines == ()
        assert (await made.want(version)).engines == ("demo-0",)
        made.engines["demo-0"].held.clear()
        made.adapters.want(version, 0)  # also without the trouble being told
        await made.settled()
        assert version in made.engines["demo-0"].held


async def test_a_flip_to_what_is_resident_waits_for_no_load_of_another(tmp_path: Path) -> None:
    async with rig(tmp_path, (3,)) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.want(a)
        made.engines["demo-0"].gate.clear()
        made.adapters.want(b, 0)
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1):
            await made.flip("support", a)
        made.engines["demo-0"].gate.set()
        await made.settled()


async def test_flips_at_the_same_time_are_made_one_after_another(tmp_path: Path) -> None:
    async with rig(tmp_path, (4,)) as made:
        names = [await made.add(label) for label in "abcd"]
        await asyncio.gather(*(made.flip("support", name) for name in names))
        changes = list(reversed(made.adapters.history("support")))
        assert all(later.before == earlier.shares for earlier, later in itertools.pairwise(changes))
        assert made.pushed[-1].aliases[0].shares == changes[-1].shares


async def test_pinned_ones_stay_and_too_many_are_refused(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        a, b, c = [await made.add(label) for label in "abc"]
        await made.adapters.pin(a)
        await made.settled()
        assert made.told(a).engines == ("demo-0",)
        await made.want(b)
        await made.want(c)
        assert set(made.engines["demo-0"].held) == {a, c}
        await made.adapters.pin(c)
        with pytest.raises(errors.Conflict, match="unpin one first"):
            await made.adapters.pin(b)
        assert "taken for good" in (await made.want(b)).refusal
        with pytest.raises(errors.Conflict, match="unpin it first"):
            await made.adapters.unload(a)
        await made.adapters.unpin(a)
        await made.adapters.unload(a)
        assert (await made.want(b)).engines == ("demo-0",)


async def test_unloaded_it_stays_away_until_somebody_asks(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        await made.adapters.unload(a)
        await made.flip("other", b)
        await made.settled()
        assert set(made.engines["demo-0"].held) == {b}
        assert (await made.want(a)).engines == ("demo-0",)


async def test_remove_takes_only_what_nobody_needs_and_its_files(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b = await made.add("a"), await made.add("b")
        await made.flip("support", a)
        await made.flip("support", b)
        for name in (a, b):
            with pytest.raises(errors.Conflict, match="by support"):
                await made.adapters.remove(name)
        await made.adapters.drop("support", "ann")
        assert made.pushed[-1].aliases == ()
        await made.adapters.remove(a)
        assert [adapter.name for adapter in made.pushed[-1].adapters] == [b]
        assert set(made.engines["demo-0"].held) == {b}
        assert len(list((tmp_path / "adapters").iterdir())) == 1
        with pytest.raises(errors.NotFound):
            await made.adapters.remove(a)


async def test_removed_and_killed_before_its_files_are_deleted_it_is_kept_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start removes files that bear no mark and that the database does not know."""

    def die(name: str) -> None:
        if name == "remove.recorded":
            raise RuntimeError("killed")

    monkeypatch.setattr(adapters, "failpoint", die)
    async with rig(tmp_path) as made:
        a, b, twin = await made.add("a"), await made.add("b"), await made.add("b", "other")
        marks = {v.name: tmp_path / "adapters" / v.digest / KNOWN for v in made.adapters.versions()}
        for name in (a, b):
            marks[name].touch()
            with pytest.raises(RuntimeError, match="killed"):
                await made.adapters.remove(name)
        assert marks[a].parent.is_dir()
        assert not marks[a].exists()
        assert marks[twin].exists()  # another version has the same files


async def test_the_gate_can_ask_for_a_reason_which_is_recorded(tmp_path: Path) -> None:
    async with rig(tmp_path, gate="require") as made:
        version = await made.add("a")
        with pytest.raises(errors.Conflict, match="--force REASON"):
            await made.flip("support", version)
        change = await made.adapters.point("support", [wire.Share(version)], "ann", force="demo day")
        assert (change.kind, change.reason, change.gate) == ("force", "demo day", "forced")
        assert made.told(version).gate == "forced"


async def test_broken_versions_are_shown_with_the_fix_and_crash_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        a, b, c = [await made.add(label) for label in "abc"]
        for alias, name in (("one", a), ("two", b), ("three", c)):
            await made.flip(alias, name)
    gone, changed, _ = (store_version(tmp_path / "adapters", label).digest for label in "abc")
    shutil.rmtree(tmp_path / "adapters" / gone)
    (tmp_path / "adapters" / changed / "adapter_model.safetensors").write_bytes(b"x")
    async with rig(tmp_path, is_up=False) as made:
        await made.settled()
        problems = {version.name: version.problem for version in made.adapters.versions()}
        assert "its files are gone" in problems[a]
        assert "publish it again" in problems[a]
        assert "not those that were stored" in problems[b]
        await made.up("demo-0")
        assert [bool(made.told(name).engines) for name in (a, b, c)] == [False, False, True]
        assert "its files are gone" in made.told(a).refusal
        assert {alias.name for alias in made.pushed[-1].aliases} == {"one", "two", "three"}
        assert await made.add("a") == a  # published again it is whole
        assert (await made.want(a)).engines == ("demo-0",)


async def test_a_missing_file_of_the_engine_is_named(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        (next((tmp_path / "adapters").iterdir()) / FakeCalls.file_name).unlink()
        with pytest.raises(VersionUnusable, match=r"adapter\.gguf is missing or damaged; publish it again"):
            await made.flip("support", version)


async def test_other_weights_under_the_same_name_refuse_the_adapter_by_both_digests(tmp_path: Path) -> None:
    other = "sha256:" + "0e" * 32
    async with rig(tmp_path) as made:
        version = await made.add("a", base=other)
        with pytest.raises(VersionUnusable, match=f"{other}.*{BASE}"):
            await made.flip("support", version)
        assert BASE in made.told(version).refusal


async def test_a_damaged_reference_is_no_reason_to_trust(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version = await made.add("a")
        (next((tmp_path / "adapters").iterdir()) / GOLDEN).write_bytes(b"{}")
        with pytest.raises(VersionUnusable, match="its reference is missing or damaged; publish it again"):
            await made.adapters.prove(version)
        assert made.told(version).engines == ()
