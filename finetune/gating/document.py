"""The verdict as it is stored and sent: JSON that binds a candidate to what was live, to the suite and to the base."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from finetune.gating.errors import GateUnusable
from finetune.gating.verdict import OUTCOMES, RULES, STATES, Judged, Verdict

FORMAT, FORMAT_VERSION = "forgegate-verdict", 1
T = TypeVar("T")
_VERSION = re.compile(r"[^@\s]+@[0-9a-f]{12}")
_SUITE = re.compile(r"sha256:[0-9a-f]{64}")
_KEYS = (
    "format", "format_version", "candidate", "live", "base", "suite", "rule", "outcome", "task", "general", "reasons", "items_to_settle",
    "at", "who",
)  # fmt: skip
_LIVE_KEYS = ("adapter", "weight")
_POINTS = ("difference", "lower", "upper")
_ROUNDED = {"live": 6, "candidate": 6, "difference": 4, "lower": 4, "upper": 4}


@dataclass(frozen=True, slots=True)
class Live:
    """One of the versions that an alias resolves to."""

    adapter: str
    weight: int


@dataclass(frozen=True, slots=True)
class Bound:
    """What a verdict holds for, and no other; all names resolved (`name@<12 hex>`)."""

    candidate: str
    live: tuple[Live, ...]
    """Empty: the base."""
    base: str
    suite: str
    """`sha256:<64 hex>`."""


@dataclass(frozen=True, slots=True)
class Document:
    bound: Bound
    verdict: Verdict
    at: str
    """ISO 8601, UTC."""
    who: str


def write(bound: Bound, verdict: Verdict, at: datetime, who: str) -> dict[str, Any]:
    """As JSON has it; reading it back gives the same. Raises GateUnusable for what is no document, a time without zone for one."""
    if at.utcoffset() is None:
        raise GateUnusable(f"the verdict's time {at.isoformat()} has no zone: give it in UTC")
    document: dict[str, Any] = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "candidate": bound.candidate,
        "live": [dataclasses.asdict(one) for one in sorted(bound.live, key=lambda one: one.adapter)],
        "base": bound.base, "suite": bound.suite, "rule": verdict.rule, "outcome": verdict.outcome,
        "task": _judged_json(verdict.task), "general": [_judged_json(one) for one in verdict.general],
        "reasons": list(verdict.reasons), "items_to_settle": verdict.items_to_settle,
        "at": at.astimezone(UTC).replace(microsecond=0).isoformat(), "who": who,
    }  # fmt: skip
    read(document)
    return document


def digest(document: Mapping[str, Any]) -> str:
    """`sha256:` of the canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def parse(text: str | bytes) -> Document:
    """Raises GateUnusable for what is no verdict."""
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise GateUnusable(f"the verdict is no JSON: {exc}") from exc
    return read(document)


def read(document: Any) -> Document:
    """Raises GateUnusable with the first key that is not as it must be."""
    found = _keys(document, _KEYS, "the verdict")
    if found["format"] != FORMAT:
        raise GateUnusable(f"format is {found['format']!r}: a verdict's is {FORMAT!r}")
    if found["format_version"] != FORMAT_VERSION or isinstance(found["format_version"], bool):
        raise GateUnusable(f"format_version is {found['format_version']!r}: this forgegate reads {FORMAT_VERSION}")
    verdict = Verdict(
        outcome=_one_of(found["outcome"], OUTCOMES, "outcome"),
        rule=_one_of(found["rule"], RULES, "rule"),
        task=_judged(found["task"], "task"),
        general=tuple(_each(found["general"], "general", _judged)),
        reasons=tuple(_each(found["reasons"], "reasons", _text)),
        items_to_settle=None
        if found["items_to_settle"] is None
        else _whole(found["items_to_settle"], "items_to_settle"),
    )
    _check_outcome(verdict)
    live = tuple(_each(found["live"], "live", _live))
    if len({one.adapter for one in live}) < len(live):
        raise GateUnusable("live names a version twice: each has one weight")
    bound = Bound(
        _match(found["candidate"], _VERSION, "candidate", "NAME@<12 hex>"), live,
        _match(found["base"], _VERSION, "base", "NAME@<12 hex>"),
        _match(found["suite"], _SUITE, "suite", "sha256:<64 hex>"),
    )  # fmt: skip
    return Document(bound, verdict, _time(found["at"]), _text(found["who"], "who"))


def _check_outcome(verdict: Verdict) -> None:
    """A document may be made by hand; GO has to follow from what it says."""
    states = [verdict.task.state, *(one.state for one in verdict.general)]
    names = [verdict.task.name, *(one.name for one in verdict.general)]
    if len(set(names)) < len(names):
        raise GateUnusable("general names a skill twice, or the task: each is judged once")
    is_lost = any(state in ("dropped", "forgotten") for state in states)
    is_kept = all(state in ("better", "kept") for state in states) and bool(verdict.general)
    wanted = "NO-GO" if is_lost else "GO" if is_kept else "INCONCLUSIVE"
    if verdict.outcome != wanted:
        raise GateUnusable(f"outcome is {verdict.outcome}, and what task and general say is {wanted}")
    if verdict.rule == "improve" and verdict.task.state == "kept":
        raise GateUnusable("task.state is 'kept': under the rule improve it is better, dropped or undecided")


def _judged_json(judged: Judged) -> dict[str, Any]:
    return {
        name: round(value, _ROUNDED[name]) if name in _ROUNDED else value
        for name, value in dataclasses.asdict(judged).items()
    }


def _judged(value: Any, where: str) -> Judged:
    found = _keys(value, tuple(field.name for field in dataclasses.fields(Judged)), where)
    judged = Judged(
        name=_text(found["name"], f"{where}.name"),
        num_items=_whole(found["num_items"], f"{where}.num_items"),
        num_clusters=_whole(found["num_clusters"], f"{where}.num_clusters"),
        live=_number(found["live"], f"{where}.live", 0, 1),
        candidate=_number(found["candidate"], f"{where}.candidate", 0, 1),
        **{name: _number(found[name], f"{where}.{name}", -100, 100) for name in _POINTS},
        state=_one_of(found["state"], STATES, f"{where}.state"),
    )
    if not judged.lower <= judged.difference <= judged.upper:
        raise GateUnusable(f"{where}.difference is {judged.difference:g}: it lies between lower and upper")
    if judged.num_clusters > judged.num_items:
        raise GateUnusable(f"{where}.num_clusters is {judged.num_clusters}: there are {judged.num_items} items")
    return judged


def _live(value: Any, where: str) -> Live:
    found = _keys(value, _LIVE_KEYS, where)
    return Live(
        _match(found["adapter"], _VERSION, f"{where}.adapter", "NAME@<12 hex>"),
        _whole(found["weight"], f"{where}.weight"),
    )


def _keys(value: Any, names: Sequence[str], where: str) -> Mapping[str, Any]:
    """Exactly those."""
    if not isinstance(value, Mapping):
        raise GateUnusable(f"{where} is {_shown(value)}: it is an object with {', '.join(names)}")
    missing = [name for name in names if name not in value]
    if missing:
        raise GateUnusable(f"{where} lacks {missing[0]}")
    unknown = [name for name in value if name not in names]
    if unknown:
        raise GateUnusable(f"{where} has {unknown[0]!r}, which no verdict has: take it off")
    return value


def _each(value: Any, where: str, read_one: Callable[[Any, str], T]) -> list[T]:
    if not isinstance(value, list | tuple):
        raise GateUnusable(f"{where} is {_shown(value)}: it is a list")
    return [read_one(one, f"{where}[{place}]") for place, one in enumerate(value)]


def _one_of(value: Any, names: Sequence[Any], where: str) -> Any:
    if value not in names:
        raise GateUnusable(f"{where} is {_shown(value)}: it is one of {', '.join(names)}")
    return value


def _match(value: Any, pattern: re.Pattern[str], where: str, form: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise GateUnusable(f"{where} is {_shown(value)}: it has the form {form}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise GateUnusable(f"{where} is {_shown(value)}: it is a text")
    return value


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise GateUnusable(f"{where} is {_shown(value)}: it is a whole number above 0")
    return value


def _number(value: Any, where: str, low: float, high: float) -> float:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise GateUnusable(f"{where} is {_shown(value)}: it is a number from {low:g} to {high:g}")
    return float(value)


def _time(value: Any) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.utcoffset() != timedelta(0):
        raise GateUnusable(f"at is {_shown(value)}: it is a time in UTC, as 2026-01-31T12:00:00+00:00")
    return str(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
