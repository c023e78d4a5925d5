"""A decision as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

from gateway.decide.chart import CHART, START, Node, Outcome, Question, Way
from gateway.decide.numbers import Asked
from gateway.decide.words import Words

_WAYS = ("full", "lora", "qlora")


@dataclass(frozen=True, slots=True)
class Decision:
    way: Way
    """That ends in an outcome."""
    unasked: tuple[Question, ...] = ()
    """Answered beforehand, and not on the way."""
    asked: Asked | None = None
    """What numbers were asked for."""
    plan: Mapping[str, Any] | None = None
    """Of `forgegate train --plan --json`."""
    problem: str = ""
    """Why there are none."""
    code: int = 0
    """Exit code of that."""

    @property
    def outcome(self) -> Outcome:
        assert isinstance(self.way.end, Outcome)
        return self.way.end

    @property
    def yes(self) -> frozenset[Question]:
        return frozenset(question for question, answer in self.way.steps if answer)


def markdown(decision: Decision, words: Words, has_chart: bool = True) -> str:
    """`has_chart`: with the chart for Mermaid, which is of no use in a terminal."""
    parts = (_head, _way, _compared, _cases, _numbers, _next, *((_chart,) if has_chart else ()))
    return "\n".join(line for part in parts for line in part(decision, words)).rstrip() + "\n"


def as_json(decision: Decision, words: Words) -> dict[str, Any]:
    """Words in the language that was asked for; keys and names in English."""
    named = words.outcomes[decision.outcome]
    return {
        "outcome": decision.outcome.value,
        "name": named.name,
        "advice": named.advice,
        "cost": named.cost,
        "time": named.time,
        "risk": named.risk,
        "path": [
            {"question": question.value, "text": words.questions[question], "answer": answer}
            for question, answer in decision.way.steps
        ],
        "not_asked": [question.value for question in decision.unasked],
        "compared": {
            outcome.value: {"name": each.name, "cost": each.cost, "time": each.time, "risk": each.risk}
            for outcome, each in words.outcomes.items()
        },
        "cases": [
            {"case": case, "example": example, "is_yours": number in _own_cases(decision, words)}
            for number, (case, example) in enumerate(words.cases)
        ],
        "next": list(named.next),
        "plan": decision.plan,
        "plan_problem": decision.problem or None,
    }


def _head(decision: Decision, words: Words) -> Iterator[str]:
    named, labels = words.outcomes[decision.outcome], words.labels
    yield from (f"# {words.title}", "", f"**{labels['answer']}: {named.name}.** {named.advice}", "")
    yield f"- {labels['cost']}: {named.cost}"
    yield f"- {labels['time']}: {named.time}"
    yield f"- {labels['risk']}: {named.risk}"
    yield ""


def _way(decision: Decision, words: Words) -> Iterator[str]:
    labels = words.labels
    yield from (f"## {labels['way']}", "")
    yield from table(
        ("", labels["question"], labels["given"]),
        [
            (str(number), words.questions[question], words.yes if answer else words.no)
            for number, (question, answer) in enumerate(decision.way.steps, 1)
        ],
    )
    yield ""
    if decision.unasked:
        yield from (f"{labels['unasked']} {', '.join(f'`--{question.value}`' for question in decision.unasked)}.", "")


def _compared(decision: Decision, words: Words) -> Iterator[str]:
    labels, outcomes = words.labels, words.outcomes
    rows: list[tuple[str, ...]] = [
        (labels["cost"], *(each.cost for each in outcomes.values())),
        (labels["time"], *(each.time for each in outcomes.values())),
        (labels["risk"], *(each.risk for each in outcomes.values())),
        *words.table,
    ]
    yield from (f"## {labels['compared']}", "")
    yield from table((labels["item"], *(each.name for each in outcomes.values())), rows)
    yield ""


def _cases(decision: Decision, words: Words) -> Iterator[str]:
    own = _own_cases(decision, words)
    yield from (f"## {words.labels['cases']}", "")
    for number, (case, example) in enumerate(words.cases):
        mark = f" **({words.labels['this_case']})**" if number in own else ""
        yield f"{number + 1}. **{case}**{mark}: {example}"
    yield ""
    if decision.outcome is not Outcome.FINE_TUNING:
        yield from (words.labels["else"], "")


def _own_cases(decision: Decision, words: Words) -> frozenset[int]:
    return frozenset(number for question, number in words.case_of.items() if question in decision.yes)


def _numbers(decision: Decision, words: Words) -> Iterator[str]:
    if decision.plan is None and not decision.problem:
        return
    yield from (f"## {words.labels['numbers']}", "")
    if decision.plan is None:
        yield f"{words.labels['no_numbers']} {decision.problem}"
    else:
        assert decision.asked is not None
        yield from table(("", ""), list(plan_rows(decision.plan, decision.asked, words.plan)))
    yield ""


def plan_rows(plan: Mapping[str, Any], asked: Asked, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is known of it, most telling first."""
    device, memory, data = plan["device"], plan["memory"], plan["data"]
    yield names["recipe"], f"`{asked.recipe}`, {plan['base']}"
    if data:
        yield names["data"], names["rows"].format(rows=data["num_rows"], mean=data["mean_length"])
    yield names["trained"], f"{plan['num_trainable']:,} ({100 * plan['share_trainable']:.2g} %)"
    yield names["device"], f"{device['name']}, {_gib(device['free_bytes'])}"
    yield names["memory"], f"{_gib(memory['total'])}: {names['fits' if plan['fits'] else 'too_large']}"
    yield names["ways"], ", ".join(f"{way} {_gib(plan['ways'][way]['total'])}" for way in _WAYS if way in plan["ways"])
    if plan["remedy"]:
        yield names["remedy"], "; ".join((*plan["remedy"]["changes"], *filter(None, [plan["remedy"]["card"]])))
    if plan["steps"]:
        yield names["steps"], f"{plan['steps']['num_steps']:,}"
    if plan["speed"]:
        yield names["time"], _duration(plan["speed"]["seconds"], names)
    if plan["cost"]:
        tries = " · ".join(f"{num} x = {cost:,.2f}" for num, cost in plan["cost"]["tries"].items())
        yield names["cost"], f"{plan['cost']['one_try']:,.2f} · {tries}"
    for note in plan["notes"]:
        yield names["note"], note
    for note in plan.get("recipe_notes", ()):
        if asked.rows is None or note.startswith("base_model"):  # with supposed rows no file is looked for
            yield names["note"], note


def _next(decision: Decision, words: Words) -> Iterator[str]:
    yield from (f"## {words.labels['next']}", "")
    yield from (f"- {each}" for each in words.outcomes[decision.outcome].next)
    yield ""


def _chart(decision: Decision, words: Words) -> Iterator[str]:
    """The whole chart for Mermaid; what was gone through is drawn thick."""
    way = decision.way
    passed: tuple[Node, ...] = (*(question for question, _ in way.steps), way.end)
    yield from (f"## {words.labels['chart']}", "", "```mermaid", "flowchart TD")
    yield f"    start[{words.start}] --> {_id(START)}"
    yield from (f"    {_node(node, words)}" for node in (*Question, *Outcome))
    for question, fork in CHART.items():
        for answer, to in ((words.yes, fork.yes), (words.no, fork.no)):
            yield f"    {_id(question)} -->|{answer}| {_id(to)}"
    yield from (f"    style {_id(node)} stroke-width:4px" for node in passed)
    yield "```"


def _node(node: Node, words: Words) -> str:
    if isinstance(node, Question):
        return f'{_id(node)}{{"{words.questions[node]}"}}'
    named = words.outcomes[node]
    return f'{_id(node)}["{named.name}<br/>{words.labels["cost"]}: {named.cost}, {words.labels["time"]}: {named.time}"]'


def _id(node: Node) -> str:
    return node.value.replace("-", "_")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide in a terminal as they are in a page: Korean letters take two places."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(head, *rows, strict=True)]
    yield _row(head, widths)
    yield _row(["-" * width for width in widths], widths)
    yield from (_row(row, widths) for row in rows)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _width(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB"


def _duration(seconds: float, names: Mapping[str, str]) -> str:
    if seconds < 3600:
        return names["minutes"].format(max(1, round(seconds / 60)))
    return names["hours"].format(seconds / 3600)
