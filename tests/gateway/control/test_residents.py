"""Wants end, whatever their holders do meanwhile."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.control.adapter_rig import Rig, rig


async def held_by_one(made: Rig) -> tuple[str, str, str]:
    """A version, the engine that holds it, and the other one."""
    version = await made.add("a")
    await made.want(version)
    (holder,) = made.told(version).engines
    return version, holder, next(name for name in made.engines if name != holder)


async def test_a_holder_that_cannot_be_asked_is_no_answer_to_a_want(tmp_path: Path) -> None:
    async with rig(tmp_path, (2, 2)) as made:
        version, holder, other = await held_by_one(made)
        made.engines[holder].die()  # nobody has seen it yet
        made.adapters.want(version, 0)
        await made.settled()
        assert other in made.told(version).engines


async def test_with_no_other_engine_a_want_waits_for_the_silent_holder(tmp_path: Path) -> None:
    async with rig(tmp_path, (2,)) as made:
        version = await made.add("a")
        await made.want(version)
        made.engines["demo-0"].die()
        num_pushed = len(made.pushed)
        made.adapters.want(version, 0)
        await made.settled()
        assert len(made.pushed) > num_pushed
        assert (made.told(version).engines, made.told(version).refusal) == (("demo-0",), "")


async def test_a_holder_that_answers_is_one_though_a_stranger_does_not_leave_it(tmp_path: Path) -> None:
    async with rig(tmp_path, (3, 3)) as made:
        version, holder, other = await held_by_one(made)
        made.engines[holder].held["stranger"] = "x"
        with made.engines[holder].request("stranger"):
            made.adapters.want(version, 0)
            await made.settled()
        assert made.told(version).engines == (holder,)
        assert made.engines[other].log == []


async def test_a_want_in_the_publish_of_an_answer_is_answered_too(tmp_path: Path) -> None:
    """The worker has the new snapshot already, and the engine that it names went down at once."""
    async with rig(tmp_path, (2, 2)) as made:
        version = await made.add("a")
        is_first = True

        def lose_it(snapshot: object) -> None:
            nonlocal is_first
            if is_first and (engines := made.told(version).engines):
                is_first = False
                made.engines[engines[0]].die()
                made.adapters.want(version, 0)

        made.on_push = lose_it
        made.adapters.want(version, 0)
        await made.settled()
        assert not is_first
        assert any(made.engines[name].is_alive for name in made.told(version).engines)


async def test_a_want_in_the_publish_of_a_refusal_is_answered_too(tmp_path: Path) -> None:
    """It was dropped before every worker knew of it."""
    async with rig(tmp_path, (2,)) as made:
        version = await made.add("a")
        made.engines["demo-0"].refuses.add(version)

        def drop_it(snapshot: object) -> None:
            if made.told(version).refusal and version in made.engines["demo-0"].refuses:
                made.engines["demo-0"].refuses.clear()
                made.adapters._residents.refusals.drop(version)
                made.adapters.want(version, 0)

        made.on_push = drop_it
        made.adapters.want(version, 0)
        await made.settled()
        assert made.told(version).engines == ("demo-0",)
