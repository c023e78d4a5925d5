"""An evaluation as one HTML page that needs nothing else: what changed, how sure that is, and which answers show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.artifacts import atomic_writer
from finetune.errors import RecipeUnusable
from finetune.evaluation.drift import SHARES
from finetune.evaluation.result import Evaluation, Model
from finetune.gating.document import Document, digest, read
from finetune.pages import plots, samples, svg
from finetune.pages.markup import TAIL, block, head, name, table, text
from finetune.pages.skill import Skill, skills_of

_STYLE = """
.banner { border-radius: .6rem; padding: .8rem 1rem; margin: 0 0 1rem; background: var(--fill); border-left: .4rem solid var(--soft) }
.banner.good { background: var(--good-fill); border-color: var(--good); color: inherit }
.banner.bad { background: var(--bad-fill); border-color: var(--bad); color: inherit }
.banner.warn { background: var(--warn-fill); border-color: var(--warn); color: inherit }
.banner p { margin: .2rem 0; overflow-wrap: anywhere }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.75rem 2.5rem; margin: 1rem 0 }
.sample { border: 1px solid var(--line); border-radius: .4rem; background: var(--card); padding: .5rem .8rem; margin: .4rem 0 }
.sample summary { overflow-wrap: anywhere }
.tag { display: inline-block; border-radius: 1rem; padding: 0 .6rem; background: var(--fill); font-size: .85rem; font-weight: 600 }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1.5rem }
.pair > div { min-width: 0 }
h4 { margin: .7rem 0 .15rem; font-size: .85rem; color: var(--soft); overflow-wrap: anywhere }
.sample .text { max-height: 30rem; overflow-y: auto }
"""
_OUTCOMES = {"GO": "good", "NO-GO": "bad", "INCONCLUSIVE": "warn"}
_HEADS = (
    "task or skill",
    "metric",
    "items",
    "clusters",
    "live",
    "candidate",
    "difference",
    "interval",
    "limit",
    "result",
)
_CHARS = 300


def write(result: Evaluation, out: Path, verdict: Mapping[str, Any] | None = None) -> None:
    """The page at `out`, whole or not at all; `verdict` is a document of the gate.

    Raises RecipeUnusable for a verdict about something else, GateUnusable for what is none, ArtifactError where the disk refuses.
    """
    document = None if verdict is None else read(verdict)
    if document is not None:
        _require_same(result, document)
    page = "".join(_page(result, document, "" if verdict is None else digest(verdict)))
    with atomic_writer(out) as file:
        file.write(page.encode("utf-8", "replace"))


def _require_same(result: Evaluation, document: Document) -> None:
    if document.bound.suite != result.suite["digest"]:
        raise RecipeUnusable("the verdict is about another suite than the evaluation: give those of one run")
    if document.bound.candidate not in [model.resolved for model in result.models]:
        asked = ", ".join(model.resolved for model in result.models)
        raise RecipeUnusable(f"the verdict is about {document.bound.candidate}, the evaluation about {asked}")


def _page(result: Evaluation, document: Document | None, of_verdict: str) -> Iterator[str]:
    live, *others = result.models
    title = f"Evaluation: {' and '.join(one.resolved for one in others) or live.resolved}"
    yield head(title, _STYLE + svg.STYLE)
    yield f"<header><h1>{text(title)}</h1>"
    if others:
        yield f'<p class="soft">against {name(live.resolved)}, which is live</p>'
    yield "</header><main>"
    yield from _banner(result, document, of_verdict)
    if not others:
        yield from _alone(result)
    for place, model in enumerate(others, 1):
        if len(others) > 1:
            yield f"<h2>{name(model.resolved)}</h2>"
        is_judged = document is not None and document.bound.candidate == model.resolved
        yield from _compared(result, model, place, document if is_judged else None)
    yield from _drift(result)
    yield from _greetings(result)
    yield from _more(result)
    yield from _environment(result, document)
    yield f"</main>{TAIL}"


def _banner(result: Evaluation, document: Document | None, of_verdict: str) -> Iterator[str]:
    failed = result.greetings["failed"]
    if document is None:
        yield '<div class="banner"><p class="strong">No verdict: these are measurements, the gate was not asked.</p></div>'
    else:
        verdict = document.verdict
        yield f'<div class="banner {_OUTCOMES[verdict.outcome]}"><p class="strong">{verdict.outcome}, by the rule {text(verdict.rule)}</p>'
        for reason in verdict.reasons:
            yield f"<p>{text(reason)}</p>"
        if verdict.items_to_settle:
            yield f"<p>About {verdict.items_to_settle:,} items of each undecided skill would settle it.</p>"
        yield f'<p class="soft">{text(document.at)}, {text(document.who)}; <code>{text(of_verdict)}</code></p></div>'
    for asked in failed:
        yield f'<div class="banner bad"><p class="strong">{name(asked)} answers greetings in the style of the task.</p></div>'


def _alone(result: Evaluation) -> Iterator[str]:
    rows = [
        (name(task), text(one.metric), f"{len(one.items):,}", f"{len(set(one.clusters)):,}", _percent(_mean(one.by_model[0])))
        for task, one in result.scores.items()
    ]  # fmt: skip
    yield from table("Scores", ("task", "metric", "items", "clusters", "score"), rows, frozenset({2, 3, 4}))


# One model against what is live -----------------------------------------------------------------------------------------


def _compared(result: Evaluation, model: Model, place: int, document: Document | None) -> Iterator[str]:
    judged = () if document is None else (document.verdict.task, *document.verdict.general)
    skills = skills_of(result, model.asked, judged)
    caption = "Tasks and skills; intervals of 95 %, by clusters"
    if judged:
        caption = "Tasks and skills; intervals are the gate's: one-sided bounds, corrected for looking more than once"
    yield from table(caption, _HEADS, map(_cells, skills), frozenset(range(2, 9)))
    names = (f"live: {_live_name(result, document)}", f"candidate: {model.resolved}")
    yield '<div class="plots">'
    yield plots.differences(f"differences-{place}", skills)
    yield plots.scores(f"scores-{place}", skills, names)
    yield from _histograms(result, place, names)
    yield "</div>"
    yield "<h3>Answers that changed</h3>"
    picked, total = samples.changed(result.answers, place)
    yield from samples.parts(picked, total, (result.models[0].resolved, model.resolved))


def _histograms(result: Evaluation, place: int, names: tuple[str, str]) -> Iterator[str]:
    for key, title, tasks in (
        ("task", "Length of answers to the task", (result.task,)),
        ("general", "Length of answers to general skills", result.general),
    ):
        answers = [line["answers"] for line in result.answers if line["task"] in tasks]
        sizes = ([len(each[0]["text"]) for each in answers], [len(each[place]["text"]) for each in answers])
        if any(sizes[0]) or any(sizes[1]):
            yield plots.lengths(f"length-{key}-{place}", title, sizes, names)
    times = tuple(
        [
            each["answers"][which]["latency_s"]
            for each in result.answers
            if each["answers"][which]["latency_s"] is not None
        ]
        for which in (0, place)
    )
    if any(times):
        yield plots.latencies(f"latency-{place}", "Time to a whole answer", (times[0], times[1]), names)


def _cells(skill: Skill) -> tuple[str, ...]:
    return (
        name(skill.name), text(skill.metric), f"{skill.num_items:,}", f"{skill.num_clusters:,}", _percent(skill.live),
        _percent(skill.candidate), f"{skill.difference:+.1f}", f"{skill.lower:+.1f} to {skill.upper:+.1f}",
        f"{skill.limit:+g}" if skill.limit else "0", f'<span class="strong {skill.style}">{text(skill.words)}</span>',
    )  # fmt: skip


def _live_name(result: Evaluation, document: Document | None) -> str:
    """All that is live, where the verdict says what that is."""
    live = document.bound.live if document else ()
    return " and ".join(f"{one.adapter} ({one.weight})" for one in live) if len(live) > 1 else result.models[0].resolved


# What else changed ------------------------------------------------------------------------------------------------------


def _drift(result: Evaluation) -> Iterator[str]:
    sets = result.drift["sets"]
    if not sets:
        return
    yield "<h2>Form of the answers</h2>"
    for change in result.drift["changes"]:
        yield f'<p><span class="strong warn">{name(change["model"])}, {text(change["set"])}:</span> {text(change["words"])}</p>'
    if not result.drift["changes"] and len(result.models) > 1:
        yield '<p class="soft">No form of the answers changed by much.</p>'
    heads = ("answers to", "model", "answers", "median characters", *SHARES.values())
    rows = [
        (
            text(key), name(model.asked), f"{row['num']:,}", f"{row['median_chars']:,.0f}",
            *(f"{100 * row[feature]:.0f} %" for feature in SHARES),
        )
        for key, by_model in sets.items() for model, row in zip(result.models, by_model, strict=True)
    ]  # fmt: skip
    yield from table("Shares of answers by form", heads, rows, frozenset(range(2, len(heads))))


def _greetings(result: Evaluation) -> Iterator[str]:
    told = result.greetings
    yield "<h2>Greetings</h2>"
    for model, row in zip(result.models, told["by_model"], strict=True):
        yield f"<p>{name(model.asked)}: {row['num_styled']} of {told['num']} are answered in the style of the task.</p>"
        if row["styled"]:
            yield "<details><summary>Which</summary>"
            for one in row["styled"]:
                yield f'<h4>{name(one["question"])}</h4>{block(one["answer"], _CHARS)}<p class="soft">{text(one["why"])}</p>'
            yield "</details>"


def _more(result: Evaluation) -> Iterator[str]:
    """Perplexity, judge, speed, other metrics: tables."""
    names = [model.asked for model in result.models]
    if result.perplexity is not None:
        caption = f"Of {result.perplexity['num_items']:,} expected answers"
        yield "<h2>Perplexity</h2>"
        rows = [(name(one), f"{value:.3g}") for one, value in zip(names, result.perplexity["by_model"], strict=True)]
        yield from table(caption, ("model", "perplexity"), rows, frozenset({1}))
    if result.judge is not None:
        yield from _judge(result.judge, names)
    yield "<h2>Speed</h2>"
    heads = ("model", "first token, ms", "each further, ms", "whole answer, ms", "tokens/s")
    rows_of_speed = [
        (name(one), *(_pair(row[key]) for key in ("ttft_ms", "tpot_ms", "latency_ms")), _rate(row))
        for one, row in zip(names, result.speed["by_model"], strict=True)
    ]  # fmt: skip
    caption = f"Median and 95th percentile, {result.speed['at_a_time']} requests at a time"
    yield from table(caption, heads, rows_of_speed, frozenset({1, 2, 3, 4}))
    others = [
        (name(task), text(metric), *(_percent(value) for value in row))
        for task, metrics in result.metrics.items() for metric, row in metrics.items() if metric != result.scores[task].metric
    ]  # fmt: skip
    if others:
        yield "<h2>Other metrics</h2>"
        yield from table("Means", ("task", "metric", *names), others, frozenset(range(2, 2 + len(names))))


def _judge(told: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    yield f"<h2>Judged by {name(told['model'])}</h2><details><summary>Rubric</summary>{block(told['rubric'], 10 * _CHARS)}</details>"
    rows = [
        (
            name(one), f"{row['wins']:,}", f"{row['losses']:,}", f"{row['ties']:,}",
            f"{_percent(row['win_rate'])} ({_percent(row['lower'])} to {_percent(row['upper'])})", f"{row['inconsistent']:,}",
            f"{row['unreadable']:,}",
        )
        for one, row in zip(names, told["by_model"], strict=True) if row is not None
    ]  # fmt: skip
    heads = ("model", "won", "lost", "ties", "win rate (95 % interval)", "turned with the order", "could not be read")
    yield from table("Against what is live, a tie is half a win", heads, rows, frozenset(range(1, 7)))


def _environment(result: Evaluation, document: Document | None) -> Iterator[str]:
    yield "<h2>Environment</h2>"
    facts = [("suite", result.suite["digest"]), ("rule", result.suite["rule"])]
    facts += [(f"model {model.asked}", f"{model.resolved}, on {model.base}") for model in result.models]
    if document is not None:
        facts += [
            (
                "live, as the verdict names it",
                ", ".join(f"{one.adapter} ({one.weight})" for one in document.bound.live) or "the base",
            )
        ]
    facts += [(key, value) for key, value in result.environment.items() if key != "notes"]
    yield from table(
        "What was asked, where and when",
        ("what", "value"),
        [(text(key), f"<code>{text(value)}</code>") for key, value in facts],
    )
    for note in result.environment["notes"]:
        yield f"<p>{text(note)}</p>"


def _rate(row: Mapping[str, Any]) -> str:
    return f"{row['tokens_per_s']:,.0f}" if row["tokens_per_s"] else "-"


def _pair(row: Mapping[str, float] | None) -> str:
    return "-" if row is None else f"{row['p50']:,.1f} / {row['p95']:,.1f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
