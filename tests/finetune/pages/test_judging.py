"""Blind judging without a browser: what the page is shown, what is asked of the models, where votes go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.errors import AdminError
from finetune.errors import RecipeUnusable
from finetune.pages.asking import Moved, Pair
from finetune.pages.journal import Entry, Journal
from finetune.pages.judging import Judging
from finetune.pages.prompts import Prompt
from finetune.pages.server import Refused
from finetune.pages.session import FORMAT, Session
from finetune.parity.served import Endpoint
from tests.finetune.pages.endpoint import CANDIDATE, LIVE, FakeEndpoint

PROMPTS = tuple(Prompt(f"d{n}", f"d{n}", ({"role": "user", "content": f"question {n}"},)) for n in range(4))
ANSWERS = {LIVE: lambda said: f"short: {said}", CANDIDATE: lambda said: f"long: {said}"}


class Kept:
    """Votes as a gateway would keep them."""

    def __init__(self) -> None:
        self.votes: list[Entry] = []
        self.refuses = ""

    def add(self, vote: Entry) -> None:
        if self.refuses:
            raise AdminError(self.refuses, 404)
        self.votes.append(vote)


class Stage:
    def __init__(self, folder: Path, endpoint: FakeEndpoint) -> None:
        self.endpoint = endpoint
        self.clients = [Endpoint(endpoint.url, model, sleep=lambda _: None) for model in (LIVE, CANDIDATE)]
        self.pair = Pair(self.clients, 16)
        self.journal = Journal(folder / "j", {"format": FORMAT, "session": "s", "seed": 3}, ())
        self.session = Session(self.journal, PROMPTS, "anna", lambda: "2026-01-01T00:00:00+00:00")
        self.kept = Kept()
        self.told: list[str] = []
        self.judging = Judging(self.session, self.pair, self.kept, self.told.append)

    def ask_all(self) -> None:
        while self.judging.asking.step():
            pass

    def vote(self, choice: str) -> dict[str, Any]:
        return self.judging.act("vote", {"pair": self.judging.view({})["pair"], "choice": choice})


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with FakeEndpoint(ANSWERS) as endpoint:
        made = Stage(tmp_path, endpoint)
        yield made
        made.journal.__exit__(None, None, None)
        for client in made.clients:
            client.close()


def test_the_page_is_not_told_who_is_who_before_the_end(stage: Stage) -> None:
    names = [LIVE, CANDIDATE, "live", "candidate", "demo@", "first", "seed"]
    assert stage.judging.view({})["state"] == "waiting"
    stage.ask_all()
    for _ in PROMPTS:
        shown = json.dumps(stage.judging.view({}))
        assert "short: question" in shown
        assert not [name for name in names if name in shown]
        told = stage.vote("1")
    assert told["state"] == "done"
    assert not [name for name in names if name in json.dumps(told)]
    result = stage.judging.act("finish", {})
    assert (result["state"], result["result"]["candidate"]) == ("finished", CANDIDATE)
    assert stage.judging.is_finished


def test_a_vote_for_another_pair_is_refused(stage: Stage) -> None:
    stage.ask_all()
    before = stage.judging.view({})["pair"]
    stage.vote("1")
    with pytest.raises(Refused, match="another pair"):
        stage.judging.act("vote", {"pair": before, "choice": "2"})
    with pytest.raises(Refused, match="choose 1, 2 or 0"):
        stage.vote("3")
    with pytest.raises(Refused, match="no such action"):
        stage.judging.act("reveal", {})
    assert stage.session.num_done == 1


def test_all_votes_but_the_last_go_to_the_gateway_at_once(stage: Stage) -> None:
    stage.ask_all()
    stage.vote("1")
    assert not stage.judging.sending.step()
    assert stage.judging.view({})["can_undo"]
    stage.vote("2")
    assert stage.judging.sending.step()
    assert [vote["prompt"] for vote in stage.kept.votes] == [stage.session.prompts[0].digest]
    stage.judging.act("undo", {})
    with pytest.raises(Refused, match="nothing to take back"):
        stage.judging.act("undo", {})
    stage.vote("0")
    stage.judging.sending.rest()
    assert [vote["choice"] for vote in stage.kept.votes] == ["1", "0"]
    assert stage.session.unsent() == []


def test_a_gateway_that_takes_no_votes_is_asked_once(stage: Stage) -> None:
    stage.ask_all()
    stage.kept.refuses = "there is no such path"
    for choice in ("1", "2", "1"):
        stage.vote(choice)
        stage.judging.sending.step()
    stage.kept.refuses = ""
    stage.judging.sending.rest()
    assert stage.kept.votes == []
    assert stage.judging.sending.problem == "there is no such path"
    assert len(stage.session.unsent()) == 3


def test_a_prompt_that_a_model_refuses_is_left_out(stage: Stage) -> None:
    stage.endpoint.refusals["question 1"] = 400
    stage.ask_all()
    assert list(stage.session.failed.values()) == ["refused: question 1"]
    assert stage.judging.view({})["done"] == 1
    assert stage.judging.view({})["total"] == 4


def test_an_endpoint_that_fails_is_asked_again(stage: Stage) -> None:
    stage.endpoint.refusals.update({f"question {n}": 500 for n in range(4)})
    assert not stage.judging.asking.step()
    assert (
        stage.judging.view({})["problem"]
        == f"refused: {stage.session.prompts[0].messages[0]['content']}. It is asked again"
    )
    stage.endpoint.refusals.clear()
    stage.ask_all()
    shown = stage.judging.view({})
    assert (shown["problem"], shown["state"]) == ("", "pair")


def test_a_name_that_moves_meanwhile_stops_the_asking(stage: Stage) -> None:
    stage.endpoint.roots[LIVE] = "demo@ffffffffffff"
    with pytest.raises(Moved, match="demo is now demo@ffffffffffff, and was demo@0123456789ab"):
        stage.pair.ask(PROMPTS[0])
    assert not stage.judging.asking.step()
    assert "name versions, not aliases" in stage.judging.view({})["problem"]
    assert stage.session.answers == {}


def test_two_names_of_one_version_are_no_pair() -> None:
    with FakeEndpoint(ANSWERS, {LIVE: "demo@0123456789ab", "alias": "demo@0123456789ab"}) as endpoint:
        with Endpoint(endpoint.url, LIVE) as one, Endpoint(endpoint.url, "alias") as other:
            with pytest.raises(RecipeUnusable, match="demo and alias are the same, demo@0123456789ab"):
                Pair([one, other], 16)


def test_what_nobody_foresaw_is_told(stage: Stage) -> None:
    stage.judging.broken(ValueError("so it is"))
    assert stage.told == ["error: ValueError: so it is"]
    assert stage.judging.view({})["problem"] == "ValueError: so it is"
