"""Forgetting for people: Markdown of its result file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]
TASK, COMPLY = "tickets", "tickets_comply"
_MARKS = {"forgotten": " **", "dropped": " *"}
"""Behind a difference that the gate calls so."""


def markdown(result: Found) -> list[str]:
    """The table of settings, each skill's difference in another, and what failed."""
    measured = [each for each in result["settings"] if "judged" in each]
    return [
        *_head(result, measured),
        "",
        *_settings(measured),
        "",
        *_skills(result, measured),
        *_failures(result["settings"]),
    ]


def _head(result: Found, measured: Sequence[Found]) -> Iterator[str]:
    yield from _machines(measured)
    yield ""
    skills = [name for name in result["base"] if name not in (TASK, COMPLY)]
    yield (
        f"The demo model, QLoRA by `{result['recipe']}`. {len(skills)} general skills, held-out items, greedy; differences are in points "
        "of 100 against the base, item by item. `tickets` are held-out tickets with every value right, of which the base has "
        f"{100 * result['base'][TASK]:.1f} %. The verdict is the gate's, which asks up to 4,000 items of skills that are undecided."
    )


def _machines(measured: Sequence[Found]) -> Iterator[str]:
    """Each with what was trained and scored there."""
    by_machine: dict[str, list[str]] = {}
    for each in measured:
        machine = each["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        by_machine.setdefault(f"{machine['cpu']}, {machine['cores']} cores; {versions}", []).append(each["setting"])
    for machine, names in by_machine.items():
        yield f"- {machine}: {', '.join(names)}"


def _settings(measured: Sequence[Found]) -> Iterator[str]:
    yield "| setting | what it sets | steps | tickets | worst skill | its difference | items | mean of skills | verdict |"
    yield "|---|---|--:|--:|---|--:|--:|--:|---|"
    for each in measured:
        skills = _differences(each)
        worst = min(skills.values(), key=lambda one: one["difference"])
        mean = sum(one["difference"] for one in skills.values()) / len(skills)
        yield (
            f"| {each['setting']} | {_changes(each)} | {each['num_steps']:,} | {100 * each['scores'][TASK]:.1f} % | {worst['name']} | "
            f"{_shown(worst)} | {worst['num_items']:,} | {mean:+.1f} | {_verdict(each['judged'])} |"
        )


def _verdict(judged: Found) -> str:
    """Where it is open: with how many items of what is undecided."""
    undecided = [one["num_items"] for one in judged["differences"].values() if one["state"] == "undecided"]
    if judged["outcome"] != "INCONCLUSIVE" or not undecided:
        return str(judged["outcome"])
    return f"INCONCLUSIVE at {min(undecided):,} items"


def _skills(result: Found, measured: Sequence[Found]) -> Iterator[str]:
    yield "Each skill's difference. `*`: dropped, `**`: forgotten, by the gate's bounds."
    yield ""
    yield f"| skill | base | {' | '.join(each['setting'] for each in measured)} |"
    yield f"|---|--:|{'--:|' * len(measured)}"
    for name in (name for name in result["base"] if name not in (TASK, COMPLY)):
        cells = (_difference(_differences(each)[name]) for each in measured)
        yield f"| {name} | {100 * result['base'][name]:.1f} % | {' | '.join(cells)} |"


def _differences(each: Found) -> dict[str, Found]:
    return {name: one for name, one in each["judged"]["differences"].items() if name != TASK}


def _changes(each: Found) -> str:
    return ", ".join(f"`{key}: {value}`" for key, value in each["changes"].items()) or "-"


def _shown(one: Found) -> str:
    return f"{one['difference']:+.1f} ({one['lower']:+.1f} to {one['upper']:+.1f})"


def _difference(one: Found) -> str:
    return f"{one['difference']:+.1f}{_MARKS.get(one['state'], '')}"


def _failures(settings: Sequence[Found]) -> Iterator[str]:
    for each in settings:
        if "judged" not in each:
            yield ""
            yield f"Not measured: {each['setting']}: {each.get('error', 'not begun within the budget')}"
