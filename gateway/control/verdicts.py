"""The document of a verdict, as `forgegate gate` makes it: read strictly, named by its content. Pure.

    digest = "sha256:" + sha256 over the document as JSON with sorted keys, without spaces, in UTF-8

Its outcome must follow from what it judged: GO needs a general skill, and the task and all skills kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, NoReturn

import msgspec

from gateway import errors
from gateway.control.desired import Outcome, Shares, Verdict
from gateway.snapshot import Share

MAX_BYTES = 256 * 1024
MAX_REASONS, MAX_REASON = 50, 2000
MAX_SKILLS = 200
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}@[0-9a-f]{12}")
_SUITE = re.compile(r"sha256:[0-9a-f]{64}")
State = Literal["better", "kept", "dropped", "forgotten", "undecided"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
Points = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    adapter: str
    weight: Count


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One skill. Bounds and difference (candidate - live) are points of 100."""

    name: Text
    num_items: Count
    num_clusters: Count
    live: Score
    candidate: Score
    difference: Points
    lower: Points
    upper: Points
    state: State


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As `finetune.gating.document` writes it."""

    format: Literal["forgegate-verdict"]
    format_version: Literal[1]
    candidate: str
    live: list[Live]
    base: str
    suite: str
    rule: Literal["improve", "non-inferior"]
    outcome: Outcome
    task: Judged
    general: Annotated[list[Judged], msgspec.Meta(max_length=MAX_SKILLS)]
    reasons: Annotated[list[Annotated[str, msgspec.Meta(max_length=MAX_REASON)]], msgspec.Meta(max_length=MAX_REASONS)]
    items_to_settle: Count | None
    at: str
    who: Annotated[str, msgspec.Meta(max_length=200)]


def read(content: bytes, at: float, peer: str) -> tuple[Verdict, str]:
    """The verdict, taken in `at` from the address `peer`, and its canonical text, which is what is kept. Raises BadRequest."""
    try:
        plain = json.loads(content, parse_constant=_no_number)
        document = msgspec.convert(plain, Document)
        text = canonical(plain)
        digest = digest_of(text)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors, too
        raise errors.BadRequest(f"no verdict: {exc}", param="verdict") from exc
    if problem := next(_problems(document), None):
        raise errors.BadRequest(f"no verdict: {problem}", param="verdict")
    live = tuple(Share(share.adapter, share.weight) for share in document.live)
    return Verdict(
        digest, document.candidate, live, document.base, document.suite, document.rule, document.outcome,
        tuple(document.reasons), f"{document.who} from {peer}" if document.who else peer, at,
    ), text  # fmt: skip


def canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def base_of(model: str, base_digest: str) -> str:
    """The base's resolved name, as answers carry it: `demo@<12 hex>`."""
    return f"{model}@{base_digest.removeprefix('sha256:')[:12]}"


def ratios(shares: Shares) -> frozenset[tuple[str, int]]:
    """Equal where two splits divide the traffic alike."""
    divisor = math.gcd(*(share.weight for share in shares)) or 1
    return frozenset((share.adapter, share.weight // divisor) for share in shares)


def _problems(document: Document) -> Iterator[str]:
    """In words for whoever wrote it."""
    names = [document.candidate, *(share.adapter for share in document.live)]
    yield from (f"{name!r} is no version (name@<12 hex digits>)" for name in names if not _VERSION.fullmatch(name))
    if not _VERSION.fullmatch(document.base):
        yield f"base: {document.base!r} is no resolved name of a model (name@<12 hex digits>)"
    if len(set(names)) != len(names):
        yield "live: each version once, and not the candidate itself"
    if not _SUITE.fullmatch(document.suite):
        yield "suite: expected sha256:<64 hex digits>"
    if not _is_utc(document.at):
        yield f"at: {document.at!r} is no time in UTC (ISO 8601)"
    if not document.who.isprintable():
        yield "who: printable characters only"
    skills = [document.task, *document.general]
    if len({skill.name for skill in skills}) != len(skills):
        yield "task and general: each skill once"
    yield from (problem for skill in skills if (problem := _skill_problem(skill)))
    yield from _outcome_problems(document)


def _skill_problem(skill: Judged) -> str:
    if skill.num_clusters > skill.num_items:
        return f"{skill.name}: more clusters than items"
    if not skill.lower <= skill.upper:
        return f"{skill.name}: lower is above upper"
    if abs(skill.difference - 100 * (skill.candidate - skill.live)) > 0.1:
        return f"{skill.name}: the difference is not 100 * (candidate - live)"
    return ""


def _outcome_problems(document: Document) -> Iterator[str]:
    """A document may be made by hand: its outcome has to follow from what it judged."""
    states = [document.task.state, *(skill.state for skill in document.general)]
    is_lost = any(state in ("dropped", "forgotten") for state in states)
    is_kept = bool(document.general) and all(state in ("better", "kept") for state in states)
    follows = "NO-GO" if is_lost else "GO" if is_kept else "INCONCLUSIVE"
    if document.outcome != follows:
        why = "" if document.general else ", since without a general skill nothing says what was forgotten"
        yield f"outcome is {document.outcome}, and from what task and general say follows {follows}{why}"
    if document.rule == "improve" and document.task.state == "kept":
        yield "task: under the rule improve it is better, dropped or undecided, never kept"
    if document.items_to_settle is not None and document.outcome != "INCONCLUSIVE":
        yield f"items_to_settle: nothing is left to settle after {document.outcome}"


def _is_utc(text: str) -> bool:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except ValueError:
        return False
    return offset is not None and not offset.total_seconds()


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
