"""What an evaluation found: scores item by item, and the file that holds it.

evaluation.json   {"format": "forgegate-evaluation", "format_version": 1,
                   "suite": {"digest", "task", "general": [names], "max_drop": {name: points}, "rule"},
                   "models": [{"asked", "resolved", "base"}],
                   "scores": {task: {"metric", "clusters": [...], "items": [ids], "closed": bool, "by_model": [[0..1, ...], ...]}},
                   "metrics": {task: {metric: [mean, one a model]}},      every metric of a task, beside the one that is compared
                   "answers": "answers.jsonl", "drift", "greetings", "perplexity", "speed", "judge", "environment"}
answers.jsonl     a line for each item: {"task", "id", "cluster", "question", "messages", "expected",
                   "answers": [{"text", "score", "finish", "num_tokens", "ttft_s", "latency_s"}, one a model]}

What was not measured is null: perplexity where the endpoint gives no log-probabilities, judge where none was named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path
from finetune.errors import RecipeUnusable
from finetune.gating.paired import Paired

FORMAT, FORMAT_VERSION = "forgegate-evaluation", 1
RESULT, ANSWERS, TABLE, PAGE = "evaluation.json", "answers.jsonl", "evaluation.md", "evaluation.html"


@dataclass(frozen=True, slots=True)
class Model:
    asked: str
    resolved: str
    """The version that answered, `support@3f2a91c04b7d`; the name where the endpoint does not say."""
    base: str
    """Resolved too; the model's own name where it is a base."""

    @property
    def is_versioned(self) -> bool:
        """Whether its name stands for its weights."""
        return "@" in self.resolved


@dataclass(frozen=True, slots=True)
class Scored:
    """Of one task: an item's scores stand at the same place in each model's list."""

    metric: str
    clusters: tuple[str, ...]
    items: tuple[str, ...]
    by_model: tuple[tuple[float, ...], ...]
    is_closed: bool = False
    """Whether the clusters are all that there are, and no sample of more."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    suite: Mapping[str, Any]
    models: tuple[Model, ...]
    scores: Mapping[str, Scored]
    metrics: Mapping[str, Mapping[str, Sequence[float]]]
    answers: Sequence[Mapping[str, Any]]
    """Lines of answers.jsonl."""
    drift: Mapping[str, Any]
    greetings: Mapping[str, Any]
    perplexity: Mapping[str, Any] | None
    speed: Mapping[str, Any]
    judge: Mapping[str, Any] | None
    environment: Mapping[str, Any]

    def paired(self, name: str, live: str, candidate: str) -> Paired:
        """A task's scores by two of the models, as they were asked for or as they resolved. Raises KeyError."""
        scored = self.scores[name]
        left, right = (scored.by_model[self.place(model)] for model in (live, candidate))
        return Paired(name, scored.clusters, left, right, scored.is_closed)

    def place(self, model: str) -> int:
        """Where a model stands in the lists. Raises KeyError."""
        for place, one in enumerate(self.models):
            if model in (one.asked, one.resolved):
                return place
        raise KeyError(model)

    @property
    def task(self) -> str:
        return str(self.suite["task"])

    @property
    def general(self) -> tuple[str, ...]:
        return tuple(self.suite["general"])

    def as_json(self) -> dict[str, Any]:
        """The document, without the answers."""
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION, "suite": dict(self.suite),
            "models": [{"asked": one.asked, "resolved": one.resolved, "base": one.base} for one in self.models],
            "scores": {
                name: {
                    "metric": one.metric, "clusters": list(one.clusters), "items": list(one.items), "closed": one.is_closed,
                    "by_model": [list(row) for row in one.by_model],
                }
                for name, one in self.scores.items()
            },
            "metrics": {name: {metric: list(row) for metric, row in one.items()} for name, one in self.metrics.items()},
            "answers": ANSWERS, "drift": dict(self.drift), "greetings": dict(self.greetings), "perplexity": self.perplexity,
            "speed": dict(self.speed), "judge": self.judge, "environment": dict(self.environment),
        }  # fmt: skip


def write(evaluation: Evaluation, folder: Path) -> Path:
    """Both files, whole or not at all; the path of the document. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in evaluation.answers)
    _replace(folder / ANSWERS, lines)
    _replace(folder / RESULT, json.dumps(evaluation.as_json(), ensure_ascii=False, indent=1) + "\n")
    return folder / RESULT


def read(path: Path) -> Evaluation:
    """From a document, or from the folder that holds it. Raises RecipeUnusable."""
    path = path / RESULT if path.is_dir() else path
    try:
        told = json.loads(path.read_bytes())
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise RecipeUnusable(f"{path}: it is no evaluation: `forgegate evaluate --out DIR` writes DIR/{RESULT}")
        if told["format_version"] != FORMAT_VERSION:
            raise RecipeUnusable(f"{path}: its format_version is {told['format_version']}; read is {FORMAT_VERSION}")
        return _evaluation(told, _answers(path.parent / str(told["answers"])))
    except OSError as exc:
        raise RecipeUnusable(f"{exc.filename or path}: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RecipeUnusable(f"{path}: it is damaged ({type(exc).__name__}: {exc})") from exc


def _evaluation(told: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> Evaluation:
    scores = {
        name: Scored(
            str(one["metric"]), tuple(one["clusters"]), tuple(one["items"]),
            tuple(tuple(float(value) for value in row) for row in one["by_model"]), bool(one["closed"]),
        )
        for name, one in told["scores"].items()
    }  # fmt: skip
    models = tuple(Model(one["asked"], one["resolved"], one["base"]) for one in told["models"])
    for name, one in scores.items():
        sizes = {len(one.items), len(one.clusters), *map(len, one.by_model)}
        if len(sizes) > 1 or len(one.by_model) != len(models):
            raise ValueError(f"lists of {name} are of different lengths")
    return Evaluation(
        told["suite"], models, scores, told["metrics"], answers, told["drift"], told["greetings"], told["perplexity"], told["speed"],
        told["judge"], told["environment"],
    )  # fmt: skip


def _answers(path: Path) -> list[dict[str, Any]]:
    # Not splitlines: a text may hold other ends of lines.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _replace(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
