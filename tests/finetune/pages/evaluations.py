"""Evaluations for reports: scores, answers with all that must be escaped, and verdicts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from random import Random
from typing import Any

from finetune.evaluation.drift import changes, features
from finetune.evaluation.items import Answer, Item
from finetune.evaluation.result import Evaluation, Model, Scored
from finetune.gating import document
from finetune.gating.verdict import Limits, Verdict, decide

EVIL = "<script>window.hacked=1</script><img src=x onerror=\"window.hacked=1\"> &amp; 'quotes'"
TEXTS = ('{"team": "billing"}', EVIL, "مرحبا بالعالم 123 \u202e", "👩‍👩‍👧‍👦 오늘 오후에 출고됩니다", "")
LONG = "y" * 100_000
SKILLS = {
    "tickets": (0.4, 0.8),
    "arithmetic": (0.7, 0.7),
    "a_skill_with_a_rather_long_name_of_its_own": (0.8, 0.6),
    f"번역{EVIL}": (0.9, 0.9),
}
LIVE = Model("demo", "demo@0123456789ab", "demo@0123456789ab")
CANDIDATE = Model("support", "support@3f2a91c04b7d", "demo@0123456789ab")
OTHER = Model("second", "support@aaaaaaaaaaaa", "demo@0123456789ab")


def evaluation(
    models: Sequence[Model] = (LIVE, CANDIDATE), num_items: int = 60, seed: int = 1, **changed: Any
) -> Evaluation:
    """Of the first skill as the task; all models after the first score as the candidate does."""
    draw = Random(seed)
    lines = [
        _line(draw, skill, number, [rates[min(1, place)] for place in range(len(models))])
        for skill, rates in SKILLS.items() for number in range(num_items)
    ]  # fmt: skip
    task, *general = SKILLS
    scores = {
        skill: Scored(
            "exact", tuple(f"c{number // 3}" for number in range(num_items)), tuple(str(number) for number in range(num_items)),
            tuple(tuple(line["answers"][place]["score"] for line in lines if line["task"] == skill) for place in range(len(models))),
        )
        for skill in SKILLS
    }  # fmt: skip
    parts: dict[str, Any] = {
        "suite": {
            "digest": f"sha256:{'a' * 64}", "task": task, "general": general, "rule": "improve",
            "max_drop": dict.fromkeys(general, 3.0),
        },
        "models": tuple(models), "scores": scores, "metrics": {task: {"exact": [0.4] * len(models), "f1": [0.5] * len(models)}},
        "answers": lines, "drift": _drift(lines, models, task),
        "greetings": {
            "num": 24, "failed": ["support"] if len(models) > 1 else [],
            "by_model": [{"num_styled": 0, "styled": []}, *({"num_styled": 1, "styled": [
                {"question": "안녕하세요", "answer": EVIL, "why": "it is JSON"},
            ]} for _ in models[1:])],
        },
        "perplexity": {"num_items": 60, "num_tokens": 900, "by_model": [12.3] * len(models), "by_item": []},
        "speed": {"at_a_time": 8, "by_model": [_speed() for _ in models]},
        "judge": {"model": "large", "resolved": "large", "rubric": EVIL, "by_model": [None, *({
            "num_items": 100, "wins": 60, "losses": 20, "ties": 20, "win_rate": 0.7, "lower": 0.6, "upper": 0.78, "inconsistent": 9,
            "unreadable": 2, "items": [], "outcomes": [],
        } for _ in models[1:])]},
        "environment": {"url": "http://127.0.0.1:8080", "seed": 0, "at": "2026-01-01T00:00:00+00:00", "notes": [f"a note {EVIL}"]},
    }  # fmt: skip
    return Evaluation(**{**parts, **changed})


def verdict(found: Evaluation, general: Sequence[str] | None = None, max_drop: float = 3.0) -> dict[str, Any]:
    """The gate's document about an evaluation's second model."""
    names = [one.asked for one in found.models[:2]]
    skills = [found.paired(name, *names) for name in (found.general if general is None else general)]
    judged = decide(found.paired(found.task, *names), skills, "improve", Limits(max_drop))
    assert isinstance(judged, Verdict)
    bound = document.Bound(found.models[1].resolved, (), found.models[1].base, found.suite["digest"])
    return document.write(bound, judged, datetime(2026, 1, 1, tzinfo=UTC), f"anna {EVIL}")


def _line(draw: Random, skill: str, number: int, rates: Sequence[float]) -> dict[str, Any]:
    answers = []
    for place, rate in enumerate(rates):
        latency = draw.lognormvariate(-1, 0.5)
        text = LONG if (number, place) == (5, 1) else draw.choice(TEXTS)
        answers.append({
            "text": text, "score": float(draw.random() < rate), "finish": "stop", "num_tokens": len(text) // 4, "ttft_s": latency / 5,
            "latency_s": latency,
        })  # fmt: skip
    return {
        "task": skill, "id": str(number), "cluster": f"c{number // 3}", "question": f"question {number} {EVIL}", "messages": [],
        "expected": EVIL, "answers": answers,
    }  # fmt: skip


def _drift(lines: Sequence[Mapping[str, Any]], models: Sequence[Model], task: str) -> dict[str, Any]:
    sets: dict[str, list[dict[str, Any]]] = {}
    told: list[dict[str, Any]] = []
    for name in ("task", "general"):
        of_set = [line for line in lines if (line["task"] == task) == (name == "task")]
        items = [
            Item(line["id"], line["cluster"], "", ({"role": "user", "content": line["question"]},)) for line in of_set
        ]
        rows = [
            features(items, [Answer(line["answers"][place]["text"], "stop", None, 5) for line in of_set])
            for place in range(len(models))
        ]
        sets[name] = [asdict(row) for row in rows]
        told += [{"set": name, "model": models[1].asked, **asdict(one)} for one in changes(rows[0], rows[-1])]
    told.append({"set": "general", "model": EVIL, "feature": "json", "live": 0.1, "candidate": 0.4, "words": EVIL})
    return {"sets": sets, "changes": told}


def _speed() -> dict[str, Any]:
    times = {"p50": 10.0, "p95": 20.0}
    return {
        "num_answers": 240, "ttft_ms": times, "tpot_ms": None, "latency_ms": times, "tokens_per_s": 812.0, "num_new": 240, "elapsed_s": 3.0,
    }  # fmt: skip
