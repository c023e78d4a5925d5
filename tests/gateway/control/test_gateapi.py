"""Verdicts, votes, watches and gated moves over a real socket, as the admin client sees them; engines are in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from backends.admin_client import AdminClient
from backends.errors import AdminError
from gateway.control.adapterapi import AdapterApi
from gateway.control.app import AdminApi, create_app
from gateway.control.gateapi import GateApi
from gateway.control.verdicts import MAX_BYTES, base_of
from tests.gateway.control.adapter_rig import BASE, Rig, rig
from tests.gateway.control.verdict_documents import document

TOKEN = "the-token"
GOOD = {"authorization": f"Bearer {TOKEN}"}
ON = base_of("demo", BASE)


@dataclass
class Served:
    made: Rig
    url: str
    a: str
    b: str

    async def call(self, work: Callable[[AdminClient], Any]) -> Any:
        """The client blocks, as commands do."""

        def run() -> Any:
            with AdminClient(self.url, TOKEN) as client:
                return work(client)

        return await asyncio.to_thread(run)

    async def refused(self, work: Callable[[AdminClient], Any]) -> AdminError:
        with pytest.raises(AdminError) as caught:
            await self.call(work)
        return caught.value


@pytest.fixture
async def served(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Served]:
    async with rig(tmp_path, (4,), gate="require") as made:
        none: Any = None
        app = create_app(
            AdminApi(none, none, none, none), TOKEN, "0", AdapterApi(made.adapters, none, ()), None,
            GateApi(made.adapters, made.adapters._store),
        )  # fmt: skip
        port = free_port()
        server = uvicorn.Server(
            uvicorn.Config(app, port=port, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
        )
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield Served(made, f"http://127.0.0.1:{port}", await made.add("a"), await made.add("b"))
        finally:
            server.should_exit = True
            await task


async def test_a_verdict_moves_the_alias_and_is_in_its_history(served: Served) -> None:
    a, b = served.a, served.b
    refusal = await served.refused(lambda client: client.point("support", {a: 1}, "ann"))
    assert (refusal.status, refusal.exit_code) == (409, 2)
    assert f"{a} has no verdict" in str(refusal)
    first = await served.call(lambda client: client.add_verdict(document(a, base=ON)))
    change = await served.call(lambda client: client.point("support", {a: 1}, "ann"))
    assert (change["gate"], change["verdict"], change["outcome"], change["warning"]) == ("go", first, "GO", "")

    told = document(b, a, base=ON)
    second = await served.call(lambda client: client.add_verdict(told))
    assert await served.call(lambda client: client.add_verdict(told)) == second  # the same one again
    canary = await served.call(lambda client: client.point("support", {a: 9, b: 1}, "ann", verdict=second[:20]))
    assert (canary["kind"], canary["gate"], canary["verdict"]) == ("split", "go", second)
    flip = await served.call(lambda client: client.point("support", {b: 1}, "ann", reason="canary went well"))
    assert (flip["kind"], flip["gate"], flip["reason"]) == ("flip", "go", "canary went well")
    back = await served.call(lambda client: client.rollback("support", "bob"))
    assert (back["shares"], back["gate"], back["verdict"], back["outcome"]) == (
        [{"adapter": a, "weight": 1}],
        "go",
        "",
        "",
    )
    found = await served.call(lambda client: client.adapter("support"))
    assert [(change["kind"], change["outcome"]) for change in found["history"]] == [
        ("rollback", ""), ("flip", "GO"), ("split", "GO"), ("flip", "GO"),
    ]  # fmt: skip
    assert (found["alias"]["watch"], found["figures"]) == (None, [])


async def test_verdicts_are_listed_newest_first_with_their_documents(served: Served) -> None:
    a, b = served.a, served.b
    documents = [document(a, base=ON), document(b, a, base=ON, outcome="NO-GO"), document(b, base=ON)]
    digests = [await served.call(lambda client, told=told: client.add_verdict(told)) for told in documents]
    found = await served.call(lambda client: client.verdicts())
    assert [verdict["digest"] for verdict in found] == digests[::-1]
    assert [verdict["document"] for verdict in found] == documents[::-1]
    (only,) = await served.call(lambda client: client.verdicts(a))
    assert (only["candidate"], only["live"], only["outcome"], only["who"]) == (a, [], "GO", "ann from 127.0.0.1")
    digits = b.partition("@")[2]
    mine = await served.call(lambda client: client.verdicts(digits[:6]))
    assert [(verdict["outcome"], verdict["live"]) for verdict in mine] == [
        ("GO", []), ("NO-GO", [{"adapter": a, "weight": 1}]),
    ]  # fmt: skip
    assert mine[1]["reasons"] == ["arithmetic is not kept"]
    await served.made.adapters.remove(a)
    assert len(await served.call(lambda client: client.verdicts(a))) == 1  # what was found of it stays
    assert "no version" in str(await served.refused(lambda client: client.verdicts("nobody@0123456789ab")))


async def test_what_is_no_verdict_of_a_version_here_is_refused(served: Served) -> None:
    a = served.a
    for told, words in (
        (document("nobody@0123456789ab", base=ON), "no version 'nobody@0123456789ab'"),
        (document(a, base="demo@000000000000"), f"the verdict is on demo@000000000000, and {a} was trained on {ON}"),
        (document(a, base=ON, general=[]), "follows INCONCLUSIVE"),
        ({"format": "forgegate-verdict"}, "no verdict: "),
    ):
        refusal = await served.refused(lambda client, told=told: client.add_verdict(told))
        assert words in str(refusal)
        assert refusal.exit_code == 2
    async with httpx.AsyncClient(base_url=served.url, headers=GOOD) as client:
        large = await client.post("/admin/v1/verdicts", content=b" " * (MAX_BYTES + 1))
        assert large.status_code == 413
        assert (await client.post("/admin/v1/verdicts", content=b"{")).status_code == 400
    assert served.made.adapters.verdicts() == ()


async def test_the_last_vote_of_a_session_on_a_prompt_counts(served: Served) -> None:
    a, b = served.a, served.b
    for session, prompt, choice in (
        ("s1", "p1", "live"),
        ("s1", "p2", "tie"),
        ("s2", "p1", "candidate"),
        ("s1", "p1", "candidate"),
    ):
        told = await served.call(lambda client, v=(session, b, a, prompt, choice): client.add_vote(*v, who="ann"))
    assert (told["session"], told["choice"], told["who"]) == ("s1", "candidate", "ann from 127.0.0.1")
    votes = await served.call(lambda client: client.votes(candidate=b, live=a))
    assert [(vote["session"], vote["prompt_digest"], vote["choice"]) for vote in votes] == [
        ("s1", "p2", "tie"), ("s2", "p1", "candidate"), ("s1", "p1", "candidate"),
    ]  # fmt: skip
    assert len(await served.call(lambda client: client.votes(session="s1"))) == 2
    assert await served.call(lambda client: client.votes(candidate=a)) == []
    for vote, words in (
        (("", b, a, "p", "tie"), "session: expected 1 to 128 printable"),
        (("s", b, "x\ny", "p", "tie"), "live: expected"),
        (("s", b, a, "p" * 81, "tie"), "prompt_digest: expected 1 to 80"),
        (("s", b, a, "p", "a"), "choice: "),
    ):
        assert words in str(await served.refused(lambda client, vote=vote: client.add_vote(*vote)))


async def test_a_watch_is_set_shown_and_switched_off(served: Served) -> None:
    rule = {"max_error_share": 0.1, "max_ttft_ratio": 2, "min_requests": 50, "window_s": 60}
    assert "no alias 'support'" in str(await served.refused(lambda client: client.watch("support", rule)))
    await served.call(lambda client: client.point("support", {served.a: 1}, "ann", force="first"))
    alias = await served.call(lambda client: client.watch("support", rule, "ann"))
    assert {name: alias["watch"][name] for name in rule} == rule
    assert alias["watch"]["who"] == "ann from 127.0.0.1"
    found = await served.call(lambda client: client.adapter("support"))
    assert found["alias"]["watch"] == alias["watch"]
    for key, value, words in (
        ("max_error_share", 1.1, "a share from 0 to 1"),
        ("max_ttft_ratio", 1.0, "above 1, 1000 at most"),
        ("min_requests", 0, "a whole number from 1"),
        ("window_s", 3601, "1 to 3600 seconds"),
        ("typo", 1, "typo"),
    ):
        assert words in str(await served.refused(lambda client, bad={**rule, key: value}: client.watch("support", bad)))
    assert (await served.call(lambda client: client.unwatch("support")))["watch"] is None


async def test_names_of_aliases_with_slashes_are_watched_too(served: Served) -> None:
    await served.call(lambda client: client.point("team/watch", {served.a: 1}, "ann", force="first"))
    assert (await served.call(lambda client: client.watch("team/watch", {})))["watch"]["min_requests"] == 100
    assert (await served.call(lambda client: client.unwatch("team/watch")))["watch"] is None


async def test_every_route_asks_for_the_token(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url) as client:
        spec = (await client.get("/openapi.json")).json()
        mine = [path for path in spec["paths"] if path.split("/")[3] in ("verdicts", "votes") or path.endswith("watch")]
        assert len(mine) == 4
        for path in mine:
            for method in spec["paths"][path]:
                reply = await client.request(method, path.replace("{name}", "x"), json={})
                assert reply.status_code == 401, (method, path)


async def test_a_verdict_counts_only_while_what_it_was_held_against_is_live(served: Served) -> None:
    """Two moves at the same time: the later one is judged by what the earlier one made live."""
    a, b = served.a, served.b
    c = await served.made.add("c")
    for told in (document(a, base=ON), document(b, a, base=ON), document(c, a, base=ON)):
        await served.call(lambda client, told=told: client.add_verdict(told))
    await served.call(lambda client: client.point("support", {a: 1}))
    engine = served.made.engines["demo-0"]
    engine.gate.clear()  # both are planned while `a` is live, and wait for their loads
    both = [
        asyncio.create_task(served.call(lambda client, name=name: client.point("support", {name: 1})))
        for name in (b, c)
    ]
    await asyncio.sleep(0.3)
    engine.gate.set()
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    (refusal,) = [outcome for outcome in outcomes if isinstance(outcome, AdminError)]
    assert f"holds it against {a}, and support serves" in str(refusal)
    assert [change.gate for change in served.made.adapters.history("support")] == ["go", "go"]
