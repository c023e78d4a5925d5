import random

import orjson

from benchmarks.traffic.lengths import Length
from benchmarks.traffic.sessions import History, places


def test_sessions_follow_each_other_and_the_last_may_be_cut():
    found = places(Length(3, 3), random.Random(0), num=5)
    assert [(place.session, place.turn, place.is_last) for place in found] == [
        (0, 0, False), (0, 1, False), (0, 2, True), (1, 0, False), (1, 1, False),
    ]  # fmt: skip
    assert len(places(Length(3, 3), random.Random(0), num_sessions=4)) == 12
    assert {place.turn for place in places(Length(1, 4), random.Random(0), num_sessions=50)} == {0, 1, 2, 3}


def test_without_turns_requests_know_nothing_of_each_other():
    assert [(place.session, place.turn) for place in places(None, random.Random(0), num=2)] == [(None, 0), (None, 0)]
    assert len(places(None, random.Random(0), num_sessions=3)) == 3


def body(*contents: str) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text} for text in contents], "n": 1})


def test_a_turn_holds_all_that_was_said_before():
    history = History()
    assert history.body_of(body("one")) == body("one")
    history.add(body("one"), "uno")
    history.add(body("two"), "dos")
    sent = orjson.loads(history.body_of(body("three")))
    assert [message["content"] for message in sent["messages"]] == ["one", "uno", "two", "dos", "three"]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert (sent["model"], sent["n"]) == ("m", 1)


def test_a_turn_without_an_answer_leaves_no_trace():
    history = History()
    history.add(body("one"), "")
    assert history.body_of(body("two")) == body("two")
