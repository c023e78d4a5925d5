"""What is wrong with an adapter, and how to mend it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from backends.errors import BackendError

SHOWN_PER_RULE = 5
"""A fault of the whole adapter shows in every tensor; more of one kind teach nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`rule` is its name for scripts; `tensor` what it is about: a tensor, a configuration key or a file of the upload; may be empty."""

    rule: str
    tensor: str
    message: str
    fix: str
    is_warning: bool = False

    def as_json(self) -> dict[str, str]:
        return {"rule": self.rule, "tensor": self.tensor, "message": self.message, "fix": self.fix}


class UploadRefused(BackendError):
    """The upload is no adapter that can be served; `problems` has all that was found."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{problem.message}: {problem.fix}" for problem in self.problems))


def shorten(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The first of each rule, and how many more there were."""
    by_rule: dict[str, list[Problem]] = {}
    for problem in problems:
        by_rule.setdefault(problem.rule, []).append(problem)
    for rule, found in by_rule.items():
        yield from found[:SHOWN_PER_RULE]
        rest = found[SHOWN_PER_RULE:]
        if rest:
            yield Problem(rule, "", f"and {len(rest)} more like these", rest[0].fix, rest[0].is_warning)


def listed(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [problem.as_json() for problem in problems]
