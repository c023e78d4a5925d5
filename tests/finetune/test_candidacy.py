"""Look after look: only what is undecided is asked for more of, and the looks end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from finetune import candidacy
from finetune.candidacy import Question, Saved, document_of, judge
from finetune.evaluation.run import Endpoint
from finetune.gating.document import read
from finetune.live import Live, Share
from tests.finetune.verdicts import BASE, NEW, OLD, Models, suite

ENDPOINT = Endpoint("http://gateway")
ALONE = Live("support", "demo", (Share(OLD, 1),))


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Models:
    """Both have everything right, unless a test says otherwise."""
    models = Models({})
    monkeypatch.setattr(candidacy, "evaluate", models.evaluate)
    return models


def shares(ask: Models, **by_model: Mapping[str, float]) -> None:
    ask.shares = {{"old": OLD, "new": NEW, "demo": "demo"}[name]: told for name, told in by_model.items()}


def test_what_is_clear_takes_one_look(ask: Models) -> None:
    shares(ask, old={"tickets": 0.2})
    done = judge(Question(suite(), ALONE, NEW, "improve"), ENDPOINT)
    assert (done.verdict.outcome, done.is_go) == ("GO", True)
    assert ask.asked == [((OLD, NEW), {"tickets": 500, "facts": 500, "arithmetic": 500})]


def test_only_the_undecided_are_asked_for_more(ask: Models) -> None:
    shares(ask, old={"tickets": 0.2}, new={"facts": 0.978})
    done = judge(Question(suite(), ALONE, NEW, "improve"), ENDPOINT)
    numbers = [asked for _, asked in ask.asked]
    assert len(numbers) > 1
    assert {asked["tickets"] for asked in numbers} == {asked["arithmetic"] for asked in numbers} == {500}
    assert [asked["facts"] for asked in numbers] == [500, 1000, 2000, 4000][: len(numbers)]
    assert done.verdict.general[0].num_items == numbers[-1]["facts"]


def test_what_was_forgotten_ends_it_at_once(ask: Models) -> None:
    shares(ask, old={"tickets": 0.2}, new={"facts": 0.6})
    done = judge(Question(suite(), ALONE, NEW, "improve"), ENDPOINT)
    assert done.verdict.outcome == "NO-GO"
    assert done.verdict.general[0].state == "forgotten"
    assert len(ask.asked) == 1


@pytest.mark.parametrize(("max_items", "looks"), [(200, [200]), (500, [500]), (700, [500, 700]), (1000, [500, 1000])])
def test_it_ends_where_no_more_may_be_asked(ask: Models, max_items: int, looks: list[int]) -> None:
    shares(ask, old={"tickets": 0.2}, new={"facts": 0.976})
    done = judge(Question(suite(), ALONE, NEW, "improve", max_items), ENDPOINT)
    assert [asked["facts"] for _, asked in ask.asked] == looks
    assert done.verdict.outcome == "INCONCLUSIVE"
    assert done.verdict.items_to_settle is not None


def test_it_ends_where_there_are_no_more_items(ask: Models) -> None:
    shares(ask, old={"tickets": 0.2}, new={"facts": 0.971})
    done = judge(Question(suite(facts=300), ALONE, NEW, "improve"), ENDPOINT)
    assert done.verdict.outcome == "INCONCLUSIVE"
    assert done.verdict.general[0].num_items == 300
    assert len(ask.asked) <= 2


def test_a_split_is_what_clients_get_on_the_average(ask: Models) -> None:
    shares(ask, old={"tickets": 0.2}, demo={"tickets": 0.0})
    split = Live("support", "demo", (Share(OLD, 3), Share("demo", 1)))
    done = judge(Question(suite(), split, NEW, "improve"), ENDPOINT)
    assert ask.asked[0][0] == (OLD, "demo", NEW)
    right = done.evaluation.scores["tickets"].by_model[0]
    assert done.verdict.task.live == pytest.approx(0.75 * sum(right) / len(right))


def test_the_document_binds_what_was_asked(ask: Models) -> None:
    shares(ask, old={"tickets": 0.2}, demo={"tickets": 0.0})
    question = Question(suite(), ALONE, NEW, "improve")
    bound = read(document_of(judge(question, ENDPOINT), question, "me@here")).bound
    assert (bound.candidate, bound.base, bound.suite) == (NEW, BASE, question.suite.digest)
    assert [(one.adapter, one.weight) for one in bound.live] == [(OLD, 1)]
    first = Question(suite(), Live("support", "demo", ()), NEW, "improve")
    told = document_of(judge(first, ENDPOINT), first, "me@here")
    assert (told["live"], told["base"], told["who"]) == ([], BASE, "me@here")


def test_what_was_asked_before_is_judged_as_it_is(ask: Models, tmp_path: Path) -> None:
    shares(ask, old={"tickets": 0.2}, new={"facts": 0.971}, demo={"tickets": 0.0})
    seen = ask.evaluate(
        suite(), None, ("demo", OLD, NEW), {"tickets": 500, "facts": 500, "arithmetic": 500}, print, None
    )  # type: ignore[arg-type]
    assert Saved(seen, OLD, NEW, "improve").judge().verdict.outcome == "INCONCLUSIVE"
    clear = Saved(seen, "demo", OLD, "improve")
    told = clear.document(clear.judge(), "me@here")
    assert (told["outcome"], told["live"], told["candidate"]) == ("GO", [], OLD)
    with pytest.raises(KeyError):
        Saved(seen, "nobody", OLD, "improve").judge()
