"""The result of a search: as data, as Markdown, and as the block for `forgegate.yaml`. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from benchmarks import report
from benchmarks.optimize import verify
from benchmarks.optimize.levels import Axis
from benchmarks.optimize.runner import Task
from benchmarks.optimize.session import Found
from benchmarks.optimize.trial import Probe, Trial

SHOWN = 12
"""Settings in tables; the JSON has all."""


@dataclass(frozen=True, slots=True)
class Point:
    """A load of a setting: what one user gets, and what all get."""

    label: str
    load: float
    tps_per_user: float
    output_tps: float
    is_carried: bool


def points_of(trials: Iterable[Trial]) -> list[Point]:
    """Every load that was measured of settings that are not out."""
    return [
        Point(trial.setting.label, probe.load, probe.tps_per_user, probe.output_tps, probe.is_carried)
        for trial in trials
        if trial.is_measured
        for probe in trial.probes
        if probe.tps_per_user
    ]


def front_of(points: Sequence[Point]) -> list[Point]:
    """Pareto's: those that no other point beats in one respect without losing in the other; by tokens/s of a user."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (-each.tps_per_user, -each.output_tps)):
        if not front or point.output_tps > front[-1].output_tps:
            front.append(point)
    return front


def trials_of(found: Found) -> list[Trial]:
    """All launches, in the order in which they were made, but for pairs' turns."""
    pairs = [trial for pair in found.pairs for trial in (pair.defaults, pair.candidate)]
    last = [found.last] if found.last and found.last not in pairs else []
    return [found.first, *found.trials, *pairs, *last]


def block_of(config: Mapping[str, Any], found: Found, axis: Axis, slo: str) -> str:
    """YAML with what it was measured for as a comment."""
    judgement = found.judgement
    load = f", up to {axis.label(judgement.load)}" if judgement.load is not None else ""
    head = f"# {judgement.reason}\n# for {slo}{load}\n"
    return head + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def result_of(
    command: Sequence[str], task: Task, found: Found, described: Mapping[str, Any], block: str | None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The JSON document. `described`: model, engine, workload."""
    trials = trials_of(found)
    return report.document(
        "optimize", command, **described,
        slo=str(task.slo), load=task.axis.name, search=task.strategy.value, seed=task.seed, budget_s=task.budget_s,
        spent_s=round(found.spent_s, 1), num_settings=found.num_settings,
        over=[str(dimension) for dimension in task.space.dimensions], fixed=dict(task.space.fixed),
        is_recommended=found.judgement.is_recommended, reason=found.judgement.reason,
        ratio=asdict(found.judgement.ratio) if found.judgement.ratio else None, recommended_load=found.judgement.load,
        candidate=found.candidate.options if found.candidate else None, block=block, drift=found.drift,
        slo_shown=_slo_shown(found, task),
        trials=[{**trial.as_dict(), "score": trial.score} for trial in trials],
        pareto=[asdict(point) for point in front_of(points_of(trials))],
        notes=[*notes, *notes_of(found)],
    )  # fmt: skip


def notes_of(found: Found) -> Iterator[str]:
    """What a reader must know of the figures."""
    if found.drift is not None:
        yield (
            f"the defaults, measured first and last: {found.first.score:,.2f} and {found.last.score if found.last else 0.0:,.2f} req/s "
            f"within the SLO ({found.drift:.2f}x): so much the machine or the prompts moved them meanwhile"
        )
    elif found.last is None:
        yield "the defaults were not measured a last time: the budget ended before"
    out = [trial for trial in found.trials if not trial.is_measured]
    if out:
        yield f"{len(out)} of {len(found.trials)} launches of the search are out: refused, not started, died, or worse answers"
    if found.trials:
        yield "figures of the search are each from one launch, and the best of many is partly the luckiest: only the pairs decide"


def markdown(result: Mapping[str, Any]) -> str:
    """For people, without the trials' details."""
    return "\n".join(_lines(result)) + "\n"


HEADS = (
    "setting",
    "stage",
    "effort",
    "req/s within the SLO",
    "at load",
    "tok/s",
    "ttft ms p50 / p99",
    "tpot ms p50 / p99",
    "start s",
)


def rows_of(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Under HEADS: the defaults first, then the best of the search, then the pairs."""
    trials = result["trials"]
    searched = sorted((trial for trial in trials if trial["stage"] == "search" and trial["score"]), key=_rank)
    for trial in [each for each in trials if each["stage"] != "search" and each["score"]][:1] + searched[:SHOWN]:
        yield _row(trial)
    for trial in [each for each in trials if each["stage"] not in ("search", "defaults first") and each["score"]]:
        yield _row(trial)


def rejected_of(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(setting, how it ended, why) of launches that came to nothing."""
    return [
        (_label(trial), trial["outcome"], trial["reason"] or _why_not(trial))
        for trial in result["trials"]
        if not trial["score"]
    ]


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    verdict = "Recommended" if result["is_recommended"] else "No recommendation"
    yield f"**{verdict}**: {result['reason']}."
    yield ""
    yield (
        f"{result['engine']}, model {result['model']}, {result['slo']}; {result['search']} search over {result['num_settings']} settings "
        f"within {result['budget_s']:.0f} s ({result['spent_s']:.0f} s spent), load by {result['load']}."
    )
    if result["block"]:
        yield from ("", "```yaml", result["block"].rstrip(), "```")
    yield from ("", f"| {' | '.join(HEADS)} |", "|---|---|" + "--:|" * (len(HEADS) - 2))
    for row in rows_of(result):
        yield f"| {' | '.join(row)} |"
    if rejected := rejected_of(result):
        yield from ("", "| setting | | why |", "|---|---|---|")
        yield from (f"| {setting} | {outcome} | {_one_line(why)} |" for setting, outcome, why in rejected)
    yield ""
    for who, words in result["slo_shown"].items():
        yield from (f"- {who}, pairs taken together: {each}" for each in words)
    yield from (f"- {note}" for note in result["notes"])
    machine = result["environment"]
    yield ""
    version = machine["versions"].get("forgegate", "")
    yield f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores; forgegate {version}; seed {result['seed']}."


def _row(trial: Mapping[str, Any]) -> tuple[str, ...]:
    best = max((each for each in trial["probes"] if not each["why_not"]), key=lambda each: each["goodput"])
    return (
        _label(trial), trial["stage"], str(trial["effort"]), f"{best['goodput']:,.2f}", f"{best['load']:.3g}", f"{best['output_tps']:,.0f}",
        _pair(best["latencies_s"], "ttft"), _pair(best["latencies_s"], "tpot"), f"{trial['start_s']:.1f}",
    )  # fmt: skip


def _slo_shown(found: Found, task: Task) -> dict[str, list[str]]:
    sides = {"candidate": [pair.candidate for pair in found.pairs], "defaults": [pair.defaults for pair in found.pairs]}
    return {
        who: [verify.test_words(*each) for each in verify.shown(bests, task.slo)]
        for who, trials in sides.items()
        if (bests := _bests(trials))
    }


def _bests(trials: Iterable[Trial]) -> list[Probe]:
    return [trial.best for trial in trials if trial.is_measured and trial.best]


def _rank(trial: Mapping[str, Any]) -> tuple[float, float]:
    return -trial["effort"], -trial["score"]


def _label(trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_one_line(str(value))}" for name, value in trial["setting"].items()) or "defaults"


def _why_not(trial: Mapping[str, Any]) -> str:
    lowest = min(trial["probes"], key=lambda each: each["load"], default=None)
    return f"at load {lowest['load']:.3g}: {lowest['why_not']}" if lowest else "no load was measured"


def _pair(latencies: Mapping[str, float | None], name: str) -> str:
    return " / ".join(
        "-" if (value := latencies[f"{name}_{at}"]) is None else f"{value * 1e3:,.1f}" for at in ("p50", "p99")
    )


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
