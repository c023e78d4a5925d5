from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec

from backends.base import Address, Facts, Identity
from backends.status import State, Status
from gateway import snapshot as wire
from gateway.config import Config
from gateway.configfile import parse
from gateway.control.fleet import LONGEST_S, Fleet, Member

CONFIG = """
models:
  - {name: demo, pools: [{engine: llamacpp, model: demo, replicas: 2}]}
  - {name: far, pools: [{engine: remote, base_url: http://h}]}
keys: [{name: app, key: secret-key-1}]
timeouts: {idle_s: 7}
limits: {max_body_bytes: 4096}
"""


class Workers:
    """Remembers what was pushed."""

    def __init__(self) -> None:
        self.pushed: list[wire.Snapshot] = []

    async def push(self, snapshot: wire.Snapshot) -> tuple[int, ...]:
        self.pushed.append(snapshot)
        return ()


def fleet(config: Config | None = None) -> tuple[Fleet, Workers]:
    workers = Workers()
    fleet = Fleet(config or parse(CONFIG), workers.push, clock=lambda: 1000.5)
    fleet.add(Member("demo-0", 0, "llamacpp", "demo", ("chat", "completions", "tokenize")))
    fleet.add(Member("demo-1", 1, "llamacpp", "demo", ("chat", "tokenize")))
    fleet.add(Member("far-0", 2, "remote", "far", ("chat",)))
    return fleet, workers


def ready(length: int | None = 2048, digest: str = "sha256:" + "ab" * 32) -> Status:
    return Status(
        State.READY,
        "",
        Address("127.0.0.1", 9),
        "s",
        5,
        facts=Facts("x", length, "demo"),
        identity=Identity(digest, True),
    )


async def test_a_report_is_pushed_whole_with_a_new_version() -> None:
    owner, workers = fleet()
    await owner.report("demo-0", ready())
    await owner.report("demo-1", Status(State.BACKOFF, "it died", retry_after_s=2.3))
    first, second = workers.pushed
    assert second.version > first.version
    demo, far = second.models
    assert [engine.state for engine in demo.engines] == ["ready", "backoff"]
    assert (demo.engines[0].port, demo.engines[0].secret, demo.engines[0].slot) == (9, "s", 0)
    assert (demo.engines[1].detail, demo.engines[1].retry_after_s) == ("it died", 3)
    assert demo.resolved == "demo@abababababab"
    assert far.resolved == "far"
    assert demo.capabilities == ("chat", "tokenize")  # what both can do
    assert demo.created == 1000
    assert second.keys[0].name == "app"
    assert second.timeouts.idle_s == 7
    assert second.max_body_bytes == 4096


async def test_an_engine_knows_best_what_it_answers_also_while_it_restarts() -> None:
    owner, workers = fleet()
    says = Facts("x", 2048, "far", ("embeddings",))
    await owner.report("far-0", replace(ready(), facts=says))
    assert workers.pushed[-1].models[1].capabilities == ("embeddings",)
    await owner.report("far-0", Status(State.STARTING, "again"))
    assert workers.pushed[-1].models[1].capabilities == ("embeddings",)


async def test_the_shortest_context_of_a_model_is_promised() -> None:
    owner, workers = fleet()
    await owner.report("demo-0", ready(4096))
    await owner.report("demo-1", ready(2048))
    assert workers.pushed[-1].models[0].context_length == 2048


def test_weights_of_another_source_may_not_answer_for_a_model() -> None:
    owner, _ = fleet()
    ours, theirs = Identity("sha256:" + "ab" * 32, True), Identity("sha256:" + "cd" * 32, True)
    assert owner.claim_weights("demo-0", ours) == ""
    assert owner.claim_weights("demo-1", ours) == ""
    assert "not those of demo-0" in owner.claim_weights("demo-1", theirs)
    assert owner.claim_weights("far-0", theirs) == ""  # another model
    assert (
        owner.claim_weights("demo-1", Identity(theirs.digest, False)) == ""
    )  # a file's digest says nothing of its source
    assert owner.claim_weights("demo-0", theirs) == ""  # the only one with a source may change it


async def test_hopeless_is_when_nothing_ever_was_ready() -> None:
    owner, _ = fleet()
    for engine_id in owner.members:
        assert not owner.is_hopeless
        await owner.report(engine_id, Status(State.FAILED, "no"))
    assert owner.is_hopeless
    await owner.report("demo-0", ready())
    await owner.report("demo-0", Status(State.FAILED, "no"))
    assert not owner.is_hopeless


async def test_who_waits_for_the_next_report_hears_when_the_workers_have_it_and_who_was_replaced() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    waiting = iter(gates)

    async def push(snapshot: wire.Snapshot) -> tuple[int, ...]:
        await next(waiting).wait()
        return (snapshot.version,)

    owner = Fleet(parse(CONFIG), push)
    owner.add(Member("demo-0", 0, "llamacpp", "demo", ("chat",)))
    owner.add(Member("far-0", 1, "remote", "far", ("chat",)))
    first = asyncio.create_task(owner.report("demo-0", ready()))
    await asyncio.sleep(0)
    reported = owner.next_report("demo-0")  # not the one that is on its way
    gates[0].set()
    await first
    assert not reported.done()
    second = asyncio.create_task(owner.report("demo-0", Status(State.DRAINING, "stop")))
    await asyncio.sleep(0)
    assert not reported.done()
    gates[1].set()
    await second
    assert reported.result() == (2,)


async def test_an_engine_that_runs_on_demand_is_told_as_one_until_it_is_drained_by_command() -> None:
    owner, workers = fleet()
    owner.members["demo-0"].is_on_demand = True
    await owner.report("demo-0", Status(State.STOPPED, "not started"))
    assert [engine.is_on_demand for engine in workers.pushed[-1].models[0].engines] == [True, False]
    assert owner.can_serve
    await owner.report("demo-0", Status(State.STOPPED, "no memory", retry_after_s=8.2, is_paused=True))
    told = workers.pushed[-1].models[0].engines[0]
    assert (told.is_on_demand, told.is_paused, told.retry_after_s) == (True, True, 9)
    assert owner.can_serve
    await owner.report("demo-0", Status(State.STOPPED, "drained by command", is_held=True))
    assert not workers.pushed[-1].models[0].engines[0].is_on_demand
    assert not owner.can_serve
    await owner.report("demo-0", Status(State.FAILED, "no"))
    assert not owner.can_serve
    await owner.report("demo-1", ready())
    assert owner.can_serve


async def test_a_report_broken_off_in_its_push_leaves_nobody_waiting() -> None:
    owner, workers = fleet()
    is_stuck, push = True, owner._push

    async def stuck(snapshot: wire.Snapshot) -> tuple[int, ...]:
        if is_stuck:
            await asyncio.Event().wait()
        return await push(snapshot)

    owner._push = stuck
    waits = owner.next_report("demo-0")
    report = asyncio.create_task(owner.report("demo-0", Status(State.STARTING)))
    await asyncio.sleep(0)
    report.cancel()
    await asyncio.wait({report})
    is_stuck = False
    await owner.report("demo-0", Status(State.FAILED))
    assert workers.pushed[-1].models[0].engines[0].state == "failed"
    assert waits.done()
    assert waits.result() == ()


async def test_what_one_engine_refuses_its_model_refuses() -> None:
    owner, workers = fleet()
    await owner.report("demo-0", replace(ready(), facts=Facts("x", refused_options=("min_p", "logit_bias"))))
    await owner.report("demo-1", replace(ready(), facts=Facts("x", refused_options=("min_p",))))
    assert workers.pushed[-1].models[0].refused_options == ("min_p", "logit_bias")


async def test_workers_are_told_how_long_requests_wait_for_engines() -> None:
    owner, _ = fleet(parse(CONFIG.replace("max_body_bytes: 4096", "engine_wait_s: 9, max_engine_waiting: 7")))
    assert (owner.snapshot().engine_wait_s, owner.snapshot().max_engine_waiting) == (9.0, 7)


def test_no_limit_reaches_the_workers_as_a_number() -> None:
    waits = ("connect_s", "first_byte_s", "idle_s", "total_s")
    content = CONFIG.replace("{idle_s: 7}", "{" + ", ".join(f"{name}: .inf" for name in waits) + "}")
    content = content.replace("{max_body_bytes: 4096}", "{engine_wait_s: .inf}") + "adapters: {wait_s: .inf}\n"
    owner, _ = fleet(parse(content))
    told = msgspec.json.decode(msgspec.json.encode(owner.snapshot()), type=wire.Snapshot)
    assert [getattr(told.timeouts, name) for name in waits] == [LONGEST_S] * 4
    assert (told.engine_wait_s, told.adapter_wait_s) == (LONGEST_S, LONGEST_S)
