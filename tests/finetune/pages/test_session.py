"""A session of blind votes: its order, what a vote means, what is there again after a kill."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from finetune.pages.journal import Journal
from finetune.pages.prompts import Prompt
from finetune.pages.session import AHEAD, FORMAT, Session, rate_of, standing

PROMPTS = tuple(Prompt(f"d{n}", f"c{n // 2}", ({"role": "user", "content": f"question {n}"},)) for n in range(20))


def opened(path: Path, seed: int = 1, prompts: tuple[Prompt, ...] = PROMPTS) -> tuple[Journal, Session]:
    journal = Journal(path, {"format": FORMAT, "session": "s", "seed": seed}, ())
    return journal, Session(journal, prompts, "anna", lambda: "2026-01-01T00:00:00+00:00")


def answer(session: Session, prompt: Prompt) -> None:
    session.add_answers(prompt, (f"live {prompt.digest}", f"candidate {prompt.digest}"))


def test_the_order_is_the_seeds_and_balanced(tmp_path: Path) -> None:
    orders = []
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        journal, session = opened(tmp_path / name, seed)
        with journal:
            for prompt in session.prompts:
                answer(session, prompt)
            orders.append([session.shown(prompt)[0] for prompt in session.prompts])
    assert orders[0] == orders[1] != orders[2]
    assert Counter(text.split()[0] for text in orders[0]) == {"live": 10, "candidate": 10}
    assert [text.split()[1] for text in orders[0]] != [prompt.digest for prompt in PROMPTS]


def test_a_vote_is_for_who_stood_there(tmp_path: Path) -> None:
    journal, session = opened(tmp_path / "j")
    with journal:
        for choice in ("1", "2", "0"):
            prompt = session.current()
            assert prompt is not None
            answer(session, prompt)
            first, second = session.shown(prompt)
            session.vote(prompt, choice)
            said = {"1": first, "2": second, "0": "tie"}[choice].split()[0]
            assert session.votes[prompt.digest]["winner"] == said
        assert session.num_done == 3


def test_all_is_there_again(tmp_path: Path) -> None:
    journal, session = opened(tmp_path / "j")
    with journal:
        one, two, three, four = session.prompts[:4]
        for prompt in (one, two, four):
            answer(session, prompt)
        session.add_failure(three, "too long")
        session.vote(one, "1")
        session.mark_sent(session.votes[one.digest])
        session.vote(two, "2")
        undone = session.undoable()
        assert undone is not None
        session.undo(undone)
        shown = session.shown(two)
    again_journal, again = opened(tmp_path / "j", seed=99)
    with again_journal:
        assert again.prompts == session.prompts
        assert again.shown(two) == shown
        assert again.current() == two
        assert list(again.votes) == [one.digest]
        assert again.failed == {three.digest: "too long"}
        assert again.unsent() == []
        assert again.undoable() is None, "the gateway has it"


def test_the_same_answers_are_a_tie_that_nobody_is_asked_about(tmp_path: Path) -> None:
    journal, session = opened(tmp_path / "j")
    with journal:
        prompt = session.prompts[0]
        session.add_answers(prompt, ("same", " same\n"))
        assert session.votes[prompt.digest]["winner"] == "tie"
        assert session.current() == session.prompts[1]
        assert session.undoable() is None


def test_few_pairs_are_asked_ahead(tmp_path: Path) -> None:
    journal, session = opened(tmp_path / "j")
    with journal:
        asked = 0
        while prompt := session.to_ask():
            answer(session, prompt)
            asked += 1
        assert asked == AHEAD
        session.vote(session.prompts[0], "0")
        assert session.to_ask() == session.prompts[AHEAD]


def test_odd_numbers_of_prompts_are_served(tmp_path: Path) -> None:
    journal, session = opened(tmp_path / "j", prompts=PROMPTS[:1])
    with journal:
        answer(session, PROMPTS[0])
        assert sorted(session.shown(PROMPTS[0])) == ["candidate d0", "live d0"]
        session.vote(PROMPTS[0], "1")
        assert session.current() is None


def test_what_stands_is_counted_by_cluster(tmp_path: Path) -> None:
    journal, session = opened(tmp_path / "j")
    with journal:
        for place, prompt in enumerate(session.prompts):
            answer(session, prompt)
            first = session.shown(prompt)[0].split()[0]
            session.vote(prompt, ("1" if first == "candidate" else "2") if place < 15 else "0")
        last = session.undoable()
        assert last is not None
        session.undo(last)
    again, _ = opened(tmp_path / "j")
    with again:
        votes = standing(again.entries)
    rate = rate_of(votes)
    assert (rate.num_wins, rate.num_losses, rate.num_ties, rate.rate) == (15, 0, 4, 1.0)
    assert rate.num_clusters < 15
    assert rate.p_value is None
