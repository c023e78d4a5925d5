from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from gateway import errors
from gateway.control import verdicts
from gateway.snapshot import Share
from tests.gateway.control.verdict_documents import BASE, SUITE, A, B, document, encoded, skill


def test_what_is_read_is_what_was_written_under_the_digest_of_its_canonical_text() -> None:
    told = document(B, A, who="앤")
    verdict, text = verdicts.read(encoded(told), 7.0, "127.0.0.1")
    assert json.loads(text) == told
    assert text == json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert verdict.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert (verdict.candidate, verdict.live, verdict.base, verdict.suite) == (B, (Share(A),), BASE, SUITE)
    assert (verdict.rule, verdict.outcome, verdict.reasons) == ("improve", "GO", ())
    assert (verdict.who, verdict.at) == ("앤 from 127.0.0.1", 7.0)


def test_the_digest_is_of_the_content_not_of_how_it_was_laid_out() -> None:
    told = document(B, A)
    other = json.dumps(dict(reversed(told.items())), indent=4).encode()
    assert verdicts.read(encoded(told), 1.0, "x")[0].digest == verdicts.read(other, 2.0, "y")[0].digest
    changed = verdicts.read(encoded(told | {"who": "bob"}), 1.0, "x")[0]
    assert changed.digest != verdicts.read(encoded(told), 1.0, "x")[0].digest


@pytest.mark.parametrize("outcome", ["NO-GO", "INCONCLUSIVE"])
def test_other_outcomes_are_verdicts_too(outcome: str) -> None:
    verdict, _ = verdicts.read(encoded(document(B, outcome=outcome)), 1.0, "x")
    assert (verdict.outcome, verdict.live, verdict.reasons) == (outcome, (), ("arithmetic is not kept",))


def test_a_rule_for_retrains_asks_for_no_improvement() -> None:
    told = document(B, A, rule="non-inferior", task=skill("tickets", "kept", 0.0))
    assert verdicts.read(encoded(told), 1.0, "x")[0].outcome == "GO"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "forgegate-evaluation"}, "format"),
        ({"format_version": 2}, "format_version"),
        ({"extra": 1}, "extra"),
        ({"candidate": "support"}, "'support' is no version"),
        ({"candidate": "support@ABCDEF012345"}, "is no version"),
        ({"live": [{"adapter": A, "weight": 0}]}, "live"),
        ({"live": [{"adapter": A, "weight": 1}] * 2}, "each version once"),
        ({"live": [{"adapter": B, "weight": 1}]}, "not the candidate itself"),
        ({"base": "demo"}, "base: 'demo' is no resolved name"),
        ({"suite": "sha256:12"}, "suite: expected"),
        ({"rule": "whatever"}, "rule"),
        ({"outcome": "MAYBE"}, "outcome"),
        ({"general": []}, "outcome is GO, and .* follows INCONCLUSIVE, since without a general skill"),
        ({"general": [skill("arithmetic", "undecided")]}, "follows INCONCLUSIVE"),
        ({"general": [skill("arithmetic", "dropped")]}, "follows NO-GO"),
        ({"task": skill("tickets", "kept")}, "under the rule improve"),
        ({"task": skill("arithmetic", "better")}, "each skill once"),
        ({"task": skill("tickets", "better") | {"lower": 9.0}}, "lower is above upper"),
        ({"task": skill("tickets", "better") | {"difference": 2.0}}, "is not 100"),
        ({"task": skill("tickets", "better") | {"candidate": 1.2}}, "candidate"),
        ({"task": skill("tickets", "better") | {"num_clusters": 501}}, "more clusters than items"),
        ({"task": skill("tickets", "better") | {"num_items": 0}}, "num_items"),
        ({"items_to_settle": 100}, "nothing is left to settle"),
        ({"reasons": ["x"] * 51}, "reasons"),
        ({"at": "2026-01-31T12:00:00"}, "is no time in UTC"),
        ({"at": "2026-01-31T12:00:00+09:00"}, "is no time in UTC"),
        ({"at": "yesterday"}, "is no time in UTC"),
        ({"who": "a\nb"}, "who: printable"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.BadRequest, match=words):
        verdicts.read(encoded(document(B, A) | changes), 1.0, "x")


def test_what_lacks_a_key_or_is_no_json_is_refused() -> None:
    told = document(B, A)
    for key in told:
        with pytest.raises(errors.BadRequest, match=key):
            verdicts.read(encoded({name: value for name, value in told.items() if name != key}), 1.0, "x")
    infinite = encoded(told).replace(b"0.8", b"Infinity", 1)
    surrogate = encoded(told).replace(b"arithmetic", b"\\ud800")
    for content in (surrogate, b"", b"[", b"[]", b"\xff", infinite, b"[" * 100_000):
        with pytest.raises(errors.BadRequest, match="no verdict"):
            verdicts.read(content, 1.0, "x")


def test_splits_are_the_same_when_they_divide_the_traffic_alike() -> None:
    assert verdicts.ratios((Share("a", 90), Share("b", 10))) == verdicts.ratios((Share("b"), Share("a", 9)))
    assert verdicts.ratios((Share("a", 7),)) == verdicts.ratios((Share("a"),))
    assert verdicts.ratios((Share("a", 2), Share("b"))) != verdicts.ratios((Share("a"), Share("b")))
    assert verdicts.ratios(()) == frozenset()
