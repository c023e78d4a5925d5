"""Service level objectives: what users are promised, in one line.

ttft_p99<500ms,tpot_p99<30ms     each: this share of all requests stays below the limit
ttft:500,tpot:30                 milliseconds; a request is good when it holds all (the form of `vllm bench serve --goodput`)
interactive                      a preset
"""

import difflib
import re
from dataclasses import dataclass

METRICS = ("ttft", "tpot", "itl", "e2e", "queue")
"""What can be promised: time to first token, time per output token after it, the request's longest gap between chunks,
the whole answer, and the time that the server says it let the request wait.
"""
_ALIASES = {"e2el": "e2e"}

PRESETS = {
    "interactive": "ttft_p99<500ms,tpot_p99<30ms",
    "conversational": "ttft_p99<2s,tpot_p99<100ms",
    "llama3.1-8b": "ttft_p99<2s,tpot_p99<100ms",
    "llama3.1-8b-interactive": "ttft_p99<500ms,tpot_p99<30ms",
    "mixtral-8x7b": "ttft_p99<2s,tpot_p99<200ms",
    "llama2-70b": "ttft_p99<2s,tpot_p99<200ms",
    "llama2-70b-interactive": "ttft_p99<450ms,tpot_p99<40ms",
    "llama3.1-405b": "ttft_p99<6s,tpot_p99<175ms",
    "llama3.1-405b-interactive": "ttft_p99<4.5s,tpot_p99<80ms",
    "deepseek-r1": "ttft_p99<2s,tpot_p99<80ms",
    "deepseek-r1-interactive": "ttft_p99<1.5s,tpot_p99<15ms",
}
"""MLPerf Inference's limits of the server and the interactive scenario, by model (mlcommons/inference, loadgen/mlperf.conf as of
6.0); the first two are those of Llama-3.1-8B.
"""

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = r"(?P<value>\d+(?:\.\d*)?|\.\d+)"
_PERCENTILE_FORM = re.compile(rf"(?P<metric>[a-z0-9]+?)_(?P<share>p\d+(?:\.\d+)?)\s*<\s*{_NUMBER}\s*(?P<unit>[a-z]*)")
_REQUEST_FORM = re.compile(rf"(?P<metric>[a-z0-9]+)\s*:\s*{_NUMBER}")


class SloError(ValueError):
    """The text is no service level objective; says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One promise."""

    metric: str
    limit_s: float
    percentile: float | None
    """Share of all requests that must hold it; None in the form that names none."""

    def __str__(self) -> str:
        limit = f"{self.limit_s * 1e3:g}"
        return (
            f"{self.metric}:{limit}"
            if self.percentile is None
            else f"{self.metric}_p{self.percentile * 100:g}<{limit}ms"
        )


@dataclass(frozen=True, slots=True)
class Slo:
    """All promises of one service. Empty is not possible, nor two for the same metric."""

    objectives: tuple[Objective, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.objectives))


def parse_slo(text: str) -> Slo:
    """Read one of the forms; raises SloError."""
    words = PRESETS.get(text.strip(), text)
    parts = [part.strip() for part in words.split(",")]
    if not any(parts):
        raise SloError(f"no service level objective: write {_examples()}")
    if not all(parts):
        raise SloError(f"an empty part between commas in {text!r}")
    objectives = tuple(map(_objective, parts))
    names = [objective.metric for objective in objectives]
    for name in names:
        if names.count(name) > 1:
            raise SloError(f"{name} is promised more than once in {text!r}: keep one limit for it")
    if len({objective.percentile is None for objective in objectives}) > 1:
        raise SloError(f"{text!r} mixes both forms: give every limit a percentile (ttft_p99<500ms), or none (ttft:500)")
    return Slo(objectives)


def _objective(part: str) -> Objective:
    if found := _PERCENTILE_FORM.fullmatch(part):
        unit = found["unit"]
        if unit not in _UNITS:
            raise SloError(
                f"{part!r} has {f'the unit {unit!r}' if unit else 'no unit'}: write us, ms or s, as in ttft_p99<500ms"
            )
        return Objective(
            _metric(found["metric"], part), _limit(found["value"], _UNITS[unit], part), _share(found["share"], part)
        )
    if found := _REQUEST_FORM.fullmatch(part):
        return Objective(_metric(found["metric"], part), _limit(found["value"], 1e-3, part), None)
    near = difflib.get_close_matches(part, PRESETS, n=1)
    guess = f"did you mean {near[0]!r}?" if near else f"write {_examples()}"
    raise SloError(f"{part!r} is no service level objective: {guess}")


def _metric(name: str, part: str) -> str:
    name = _ALIASES.get(name, name)
    if name not in METRICS:
        raise SloError(f"{part!r} names {name!r}, which nothing is known about: one of {', '.join(METRICS)}")
    return name


def _limit(value: str, unit_s: float, part: str) -> float:
    limit_s = float(value) * unit_s
    if limit_s <= 0:
        raise SloError(f"{part!r} allows no time at all: the limit must be above 0")
    return limit_s


def _share(words: str, part: str) -> float:
    percent = float(words[1:])
    if not 0 < percent < 100:
        raise SloError(f"{part!r} asks for {words}: a percentile lies between p0 and p100, without either")
    return round(percent / 100, 12)  # 99.9 / 100 would not be 0.999


def _examples() -> str:
    return "ttft_p99<500ms,tpot_p99<30ms, or ttft:500,tpot:30 (milliseconds), or a preset such as interactive or conversational"
