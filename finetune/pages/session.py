"""A session of blind votes: which pair is shown, in which order its answers stand, what was said of it. All of it is in a journal.

{"format": "forgegate-ab", "session", "models": [live, candidate], "resolved": [...], "prompts": digest, "max_tokens", "seed", "who", "at"}
{"kind": "answers", "prompt": digest, "answers": [of live, of candidate]}
{"kind": "failed", "prompt": digest, "why"}                  neither is asked again
{"kind": "vote", "id", "prompt": digest, "cluster", "first": the model shown first, 0 or 1, "choice": "1" | "2" | "0",
 "winner": "candidate" | "live" | "tie", "is_identical", "who", "at"}
{"kind": "undo", "id"}                                       the vote does not count
{"kind": "sent", "id"}                                       the gateway has it
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Literal

from finetune.pages.journal import Entry, Journal
from finetune.pages.prompts import Prompt
from finetune.pages.winrate import WinRate, win_rate

FORMAT = "forgegate-ab"
Choice = Literal["1", "2", "0"]
CHOICES: tuple[Choice, ...] = ("1", "2", "0")
LIVE, CANDIDATE, TIE = "live", "candidate", "tie"
_SIDES = (LIVE, CANDIDATE)
AHEAD = 6
"""Pairs that are asked for before they are needed."""


class Session:
    """Not for two threads at once."""

    def __init__(self, journal: Journal, prompts: Sequence[Prompt], who: str, now: Callable[[], str]) -> None:
        self._journal, self._who, self._now = journal, who, now
        self.name = str(journal.head["session"])
        draw = Random(journal.head["seed"])
        self.prompts = tuple(draw.sample(prompts, len(prompts)))
        half = [0, 1] * (len(prompts) // 2 + 1)
        draw.shuffle(half)
        self._first = {prompt.digest: side for prompt, side in zip(self.prompts, half, strict=False)}
        self.answers: dict[str, tuple[str, str]] = {}
        self.failed: dict[str, str] = {}
        self.votes: dict[str, Entry] = {}
        """By prompt, in the order of voting."""
        self.sent: set[str] = set()
        for entry in journal.entries:
            self._apply(entry)

    def current(self) -> Prompt | None:
        """What is to be judged next, whether its answers are there or not; None when all is done."""
        return next((one for one in self.prompts if self._is_open(one)), None)

    def to_ask(self) -> Prompt | None:
        """The next pair that lacks its answers; None where enough are there for now."""
        for one in [one for one in self.prompts if self._is_open(one)][:AHEAD]:
            if one.digest not in self.answers:
                return one
        return None

    def shown(self, prompt: Prompt) -> tuple[str, str]:
        """Both answers in the order of this session."""
        first = self._first[prompt.digest]
        answers = self.answers[prompt.digest]
        return answers[first], answers[1 - first]

    def add_answers(self, prompt: Prompt, answers: tuple[str, str]) -> None:
        """Where they are the same there is nothing to judge: a tie."""
        self._keep({"kind": "answers", "prompt": prompt.digest, "answers": list(answers)})
        if answers[0].strip() == answers[1].strip():
            self.vote(prompt, "0", is_identical=True)

    def add_failure(self, prompt: Prompt, why: str) -> None:
        self._keep({"kind": "failed", "prompt": prompt.digest, "why": why})

    def vote(self, prompt: Prompt, choice: Choice, is_identical: bool = False) -> None:
        first = self._first[prompt.digest]
        winner = TIE if choice == "0" else _SIDES[first if choice == "1" else 1 - first]
        self._keep({
            "kind": "vote", "id": uuid.uuid4().hex, "prompt": prompt.digest, "cluster": prompt.cluster, "first": first,
            "choice": choice, "winner": winner, "is_identical": is_identical, "who": self._who, "at": self._now(),
        })  # fmt: skip

    def undoable(self) -> Entry | None:
        """The last vote of a person; None where there is none, or the gateway has it."""
        last = next((vote for vote in reversed(self.votes.values()) if not vote["is_identical"]), None)
        return None if last is None or last["id"] in self.sent else last

    def undo(self, vote: Entry) -> None:
        self._keep({"kind": "undo", "id": vote["id"]})

    def unsent(self) -> list[Entry]:
        """Oldest first."""
        return [vote for vote in self.votes.values() if vote["id"] not in self.sent]

    def mark_sent(self, vote: Entry) -> None:
        self._keep({"kind": "sent", "id": vote["id"]})

    @property
    def num_done(self) -> int:
        return len(self.votes) + len(self.failed)

    def _is_open(self, prompt: Prompt) -> bool:
        return prompt.digest not in self.votes and prompt.digest not in self.failed

    def _keep(self, entry: Entry) -> None:
        self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        match entry["kind"]:
            case "answers":
                live, candidate = entry["answers"]
                self.answers[entry["prompt"]] = (live, candidate)
            case "failed":
                self.failed[entry["prompt"]] = entry["why"]
            case "vote":
                self.votes[entry["prompt"]] = entry
            case "undo":
                self.votes = {prompt: vote for prompt, vote in self.votes.items() if vote["id"] != entry["id"]}
            case "sent":
                self.sent.add(entry["id"])


def standing(entries: Iterable[Entry]) -> list[Entry]:
    """The votes in a journal that count."""
    votes: dict[str, Entry] = {}
    for entry in entries:
        if entry.get("kind") == "vote":
            votes[entry["id"]] = entry
        elif entry.get("kind") == "undo":
            votes.pop(entry["id"], None)
    return list(votes.values())


def rate_of(votes: Iterable[Entry]) -> WinRate:
    outcome = {CANDIDATE: True, LIVE: False, TIE: None}
    return win_rate((vote["cluster"], outcome[vote["winner"]]) for vote in votes)


def result_json(models: Sequence[str], votes: Sequence[Entry]) -> dict[str, Any]:
    rate = rate_of(votes)
    return {
        "live": models[0], "candidate": models[1], "wins": rate.num_wins, "losses": rate.num_losses, "ties": rate.num_ties,
        "identical": sum(vote["is_identical"] for vote in votes), "clusters": rate.num_clusters, "rate": rate.rate,
        "lower": rate.lower, "upper": rate.upper, "p_value": rate.p_value,
    }  # fmt: skip
