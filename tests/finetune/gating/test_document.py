"""The verdict's document: what is written is read back, and anything else is refused with one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from finetune.gating.document import Bound, Live, digest, parse, read, write
from finetune.gating.errors import GateUnusable
from finetune.gating.verdict import Limits, Verdict, decide
from tests.finetune.gating.pairs import paired

AT = datetime(2026, 1, 31, 12, 0, 5, 999, tzinfo=UTC)
BOUND = Bound("support@3f2a91c04b7d", (Live("support@0123456789ab", 1),), "demo@f45d0c64a1a1", f"sha256:{'ab' * 32}")


def made(lost: int = 1) -> Verdict:
    found = decide(
        paired("tickets", 0, gained=190, wrong=10), (paired("facts", 499 - lost, lost, 1),), "improve", Limits()
    )
    assert isinstance(found, Verdict)
    return found


def document(**changes: Any) -> dict[str, Any]:
    return {**write(BOUND, made(), AT, "yuna"), **changes}


def test_what_is_written_is_read_back() -> None:
    for lost in (1, 12, 100):
        found = read(write(BOUND, made(lost), AT, "yuna"))
        assert (found.bound, found.at, found.who) == (BOUND, "2026-01-31T12:00:05+00:00", "yuna")
        verdict = made(lost)
        assert (found.verdict.outcome, found.verdict.reasons) == (verdict.outcome, verdict.reasons)
        assert found.verdict.items_to_settle == verdict.items_to_settle
        assert found.verdict.general[0].lower == pytest.approx(verdict.general[0].lower, abs=1e-4)
    assert [made(lost).outcome for lost in (1, 12, 100)] == ["GO", "INCONCLUSIVE", "NO-GO"]


def test_the_keys_are_those_that_others_read() -> None:
    assert list(document()) == [
        "format", "format_version", "candidate", "live", "base", "suite", "rule", "outcome", "task", "general", "reasons",
        "items_to_settle", "at", "who",
    ]  # fmt: skip
    assert list(document()["task"]) == [
        "name", "num_items", "num_clusters", "live", "candidate", "difference", "lower", "upper", "state",
    ]  # fmt: skip
    assert document()["live"] == [{"adapter": "support@0123456789ab", "weight": 1}]


def test_the_digest_is_of_the_content_and_not_of_how_it_is_written() -> None:
    first = document()
    turned = json.loads(json.dumps(dict(reversed(first.items())), indent=3))
    assert digest(turned) == digest(first)
    assert (
        digest({"b": [1, "한"], "a": None}) == "sha256:0403ea3975b5b8fefed96c06ae8b15fe056006bdf519f0f8f07f54f303651317"
    )
    assert digest(document(who="someone else")) != digest(first)


def test_live_versions_are_written_in_one_order_and_none_is_the_base() -> None:
    split = (Live("support@ffffffffffff", 1), Live("support@0123456789ab", 9))
    one, other = (
        write(Bound(BOUND.candidate, live, BOUND.base, BOUND.suite), made(), AT, "yuna")
        for live in (split, split[::-1])
    )
    assert digest(one) == digest(other)
    assert read(write(Bound(BOUND.candidate, (), BOUND.base, BOUND.suite), made(), AT, "yuna")).bound.live == ()


def test_times_are_written_in_utc() -> None:
    assert (
        write(BOUND, made(), AT.astimezone(timezone(timedelta(hours=9))), "yuna")["at"] == "2026-01-31T12:00:05+00:00"
    )
    with pytest.raises(GateUnusable, match="has no zone"):
        write(BOUND, made(), AT.replace(tzinfo=None), "yuna")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format", "forgegate-recipe", "format is 'forgegate-recipe': a verdict's is 'forgegate-verdict'"),
        ("format_version", 2, "format_version is 2: this forgegate reads 1"),
        ("format_version", True, "format_version is True"),
        ("candidate", "support", r"candidate is 'support': it has the form NAME@<12 hex>"),
        ("candidate", "support@3f2a91c04b7d\n", "candidate is"),
        ("live", "support@3f2a91c04b7d", "live is 'support@3f2a91c04b7d': it is a list"),
        ("live", [{"adapter": "support@3f2a91c04b7d"}], r"live\[0\] lacks weight"),
        (
            "live",
            [{"adapter": "support@3f2a91c04b7d", "weight": 0}],
            r"live\[0\].weight is 0: it is a whole number above 0",
        ),
        ("live", [{"adapter": "support@3f2a91c04b7d", "weight": 1}] * 2, "live names a version twice"),
        ("base", None, "base is None: it has the form NAME@<12 hex>"),
        ("suite", "sha256:abc", "suite is 'sha256:abc': it has the form sha256:<64 hex>"),
        ("rule", "best", "rule is 'best': it is one of improve, non-inferior"),
        ("outcome", "MAYBE", "outcome is 'MAYBE': it is one of GO, NO-GO, INCONCLUSIVE"),
        ("outcome", "NO-GO", "outcome is NO-GO, and what task and general say is GO"),
        ("outcome", ["GO"], r"outcome is \['GO'\]"),
        ("general", [], "outcome is GO, and what task and general say is INCONCLUSIVE"),
        ("general", [1], r"general\[0\] is 1: it is an object with name, num_items"),
        ("task", None, "task is None: it is an object"),
        ("reasons", ["", "x"], r"reasons\[0\] is '': it is a text"),
        ("items_to_settle", 1.5, "items_to_settle is 1.5: it is a whole number above 0"),
        ("at", "yesterday", "at is 'yesterday': it is a time in UTC"),
        ("at", "2026-01-31T12:00:00", "at is '2026-01-31T12:00:00': it is a time in UTC"),
        ("at", 5, "at is 5"),
        ("who", 7, "who is 7: it is a text"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(key: str, value: Any, words: str) -> None:
    with pytest.raises(GateUnusable, match=words) as caught:
        read(document(**{key: value}))
    assert "\n" not in str(caught.value)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda judged: judged.update({name: value})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_set("lower", float("nan")), "task.lower is nan: it is a number from -100 to 100"),
        (_set("lower", "low"), "task.lower is 'low'"),
        (_set("live", 1.5), "task.live is 1.5: it is a number from 0 to 1"),
        (_set("live", True), "task.live is True"),
        (_set("num_items", 0), "task.num_items is 0"),
        (_set("num_clusters", 9999), "task.num_clusters is 9999: there are 200 items"),
        (_set("state", "fine"), "task.state is 'fine': it is one of better, kept, dropped, forgotten, undecided"),
        (_set("state", "kept"), "task.state is 'kept': under the rule improve"),
        (_set("lower", 99.0), "task.difference is 95: it lies between lower and upper"),
        (_set("name", "facts"), "general names a skill twice, or the task"),
        (_set("p", 0.01), "task has 'p', which no verdict has"),
        (lambda judged: judged.pop("upper"), "task lacks upper"),
    ],
)
def test_a_wrong_judgement_is_named(spoil: Callable[[dict[str, Any]], object], words: str) -> None:
    spoilt = copy.deepcopy(document())
    spoil(spoilt["task"])
    with pytest.raises(GateUnusable, match=words):
        read(spoilt)


def test_other_keys_and_missing_ones_are_named() -> None:
    with pytest.raises(GateUnusable, match="the verdict has 'note', which no verdict has: take it off"):
        read(document(note="trust me"))
    short = document()
    del short["suite"]
    with pytest.raises(GateUnusable, match="the verdict lacks suite"):
        read(short)
    with pytest.raises(GateUnusable, match=r"the verdict is \[1\]: it is an object"):
        read([1])


def test_text_is_parsed_and_what_is_no_json_is_said() -> None:
    assert parse(json.dumps(document())).who == "yuna"
    assert parse(json.dumps(document()).encode()).who == "yuna"
    with pytest.raises(GateUnusable, match="the verdict is no JSON: Expecting value"):
        parse("GO")
    with pytest.raises(GateUnusable, match="the verdict is no JSON"):
        parse(b"\xff\xfe\xfd")
