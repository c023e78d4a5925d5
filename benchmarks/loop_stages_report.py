"""The loop for people: Markdown of its result file."""

from collections.abc import Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]


def markdown(result: Found) -> list[str]:
    """Every stage that was reached, what came of it, and the conditions."""
    return [
        *_head(result),
        "",
        *_stages(result),
        *(line for each in result.get("trainings", ()) for line in _training(each)),
        *_answers(result),
        *_clients(result),
        *_conditions(result),
    ]


def _head(result: Found) -> Iterator[str]:
    machine, gpu = result["environment"], result["gpu"]
    where = (
        f"One {gpu['name']}, driver {gpu['driver']}, {machine['cores']} cores"
        if gpu
        else f"{machine['cpu']}, {machine['cores']} cores"
    )
    versions = ", ".join(f"{name} {version}" for name, version in result.get("packages", {}).items())
    yield f"{where}; {machine['date']}."
    for engine in result.get("engines", ()):
        yield f"`{engine['engine']}`: {engine['description']}, ready {engine['ready_s']} s after the gateway."
    if versions:
        yield f"Trained with {versions}."
    if result["plan"]["tiny"]:
        yield "A short form (`--tiny`): its times and its verdict are no measurement, the alias was moved by `--force`."


def _stages(result: Found) -> Iterator[str]:
    yield "| stage | s | command |"
    yield "|---|--:|---|"
    if "start_s" in result:
        yield f"| gateway and both engines start | {result['start_s']:.1f} | `forgegate serve` |"
    for stage in result.get("stages", ()):
        yield f"| {stage['stage']} | {stage['seconds']:.1f} | `{stage['command']}` |"
        for phase in stage["phases"]:
            yield f"| - {phase['phase']} | {phase['seconds']:.1f} | |"
    if "total_s" in result:
        yield f"| all of it, requests to each engine included | {result['total_s']:.1f} | |"
    if "error" in result:
        yield from ("", "It did not come to its end:", "", "```", result["error"], "```")


def _training(training: Found) -> Iterator[str]:
    stage, run, verdict = training["stage"], training["run"], training["verdict"]
    if run:
        yield from ("", (
            f"{stage[0].upper()}{stage[1:]}: {run['num_rows']:,} rows, {run['num_tokens']:,} tokens; {run['num_steps']:,} steps in "
            f"{run['seconds']:.1f} s, loss {_loss(run['loss'])}, held out {_loss(run['eval_loss'])}."
        ))  # fmt: skip
    if verdict:
        skills = [*([verdict["task"]] if verdict["task"] else []), *verdict["general"]]
        yield from ("", f"Verdict: {verdict['outcome']}, by the rule {verdict['rule']}.", "")
        yield "| asked | items | live | candidate | difference, points | |"
        yield "|---|--:|--:|--:|--:|---|"
        for one in skills:
            yield (
                f"| {one['name']} | {one['num_items']:,} | {100 * one['live']:.1f} | {100 * one['candidate']:.1f} | "
                f"{one['difference']:+.1f} ({one['lower']:+.1f} to {one['upper']:+.1f}) | {one['state']} |"
            )


def _answers(result: Found) -> Iterator[str]:
    asked = result.get("answers", {})
    if asked:
        yield from (
            "",
            "One ticket, asked of the alias:",
            "",
            "| when | engine | version | answer |",
            "|---|---|---|---|",
        )
    for when, answers in asked.items():
        for one in answers:
            text = one["text"].replace("\n", " ").replace("|", "\\|")
            yield f"| {when} | {one['engine']} | {one['version']} | `{text}` |"


def _clients(result: Found) -> Iterator[str]:
    clients = result.get("clients")
    if clients:
        yield from ("", (
            f"{clients['num_clients']} clients streamed meanwhile: {clients['num_requests']:,} requests, {clients['num_failed']} failed."
        ), "", "| answered by | on | requests |", "|---|---|--:|")  # fmt: skip
        for one in clients["answered"]:
            yield f"| {one['version']} | {one['engine']} | {one['num']:,} |"


def _conditions(result: Found) -> Iterator[str]:
    yield from ("", "| condition | held | found |", "|---|---|---|")
    for check in result["checks"]:
        found = check["found"].splitlines()[0][:300] if check["found"] else ""
        yield f"| {check['name']} | {'yes' if check['is_met'] else '**no**'} | {found} |"


def _loss(value: float | None) -> str:
    """A short form may end before the first evaluation."""
    return "none" if value is None else f"{value:.3f}"
