"""Conversations of several turns, in which each request holds all that was said before."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.traffic.lengths import LengthDraw

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands: `session` is None outside of sessions."""

    session: int | None
    turn: int
    is_last: bool


def places(
    turns: LengthDraw | None, rng: random.Random, *, num: int | None = None, num_sessions: int | None = None
) -> list[Place]:
    """Places of `num` requests (the last session may be cut short), or of all requests of `num_sessions` sessions.

    Sessions lie one after the other in the list, whatever order their turns are sent in.
    """
    dealt = itertools.chain.from_iterable(itertools.islice(_sessions(turns, rng), num_sessions))
    return list(itertools.islice(dealt, num))


def _sessions(turns: LengthDraw | None, rng: random.Random) -> Iterator[list[Place]]:
    for number in itertools.count():
        if turns is None:
            yield [Place(None, 0, True)]
            continue
        num_turns = turns.draw(rng)
        yield [Place(number, turn, turn == num_turns - 1) for turn in range(num_turns)]


class History:
    """What was said in one session so far."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def body_of(self, body: bytes) -> bytes:
        """The turn's body with everything before it put in front of its own messages."""
        if not self._messages:
            return body
        fields = orjson.loads(body)
        fields["messages"] = [*self._messages, *fields["messages"]]
        return orjson.dumps(fields)

    def add(self, body: bytes, answer: str) -> None:
        """A turn was answered: `body` holds its own messages. A turn without an answer leaves no trace, as if the user had
        thought better of it.
        """
        if answer:
            asked: Sequence[Message] = orjson.loads(body)["messages"]
            self._messages += [*asked, {"role": "assistant", "content": answer}]
