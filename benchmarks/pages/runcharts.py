"""The charts of a run's result document. Pure: what the document does not hold is not drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.pages.chart import Chart, Series
from benchmarks.quantiles import SHARES

Level = Mapping[str, Any]
_MS = 1e3
_LATENCIES = (
    ("ttft_user_s", "time to first token"),
    ("tpot_s", "time per output token"),
    ("e2e_user_s", "whole answer"),
)


_ANSWERED = "requests/s answered"


def charts(levels: Sequence[Level], slo: Mapping[str, float] | None = None, *, is_survey: bool = False) -> list[Chart]:
    """Those that have a point, in the order of the page. `slo`: by metric, seconds. The closed and open loops of a survey are of
    one server from idle to full: they share an axis, the requests that were answered.
    """
    groups = {_ANSWERED: sorted(levels, key=_answered)} if is_survey else _grouped(levels)
    made = (*_against_load(groups, slo or {}), *_pareto(levels), *_cdfs(levels), *_timelines(levels))
    return [each for each in made if not each.is_empty]


def limits_of(slo: Mapping[str, Any] | None) -> dict[str, float]:
    """Of a document's SLO, by the names of the latencies that are drawn."""
    names = {key.partition("_")[0]: key for key, _ in _LATENCIES}
    objectives = slo["objectives"] if slo else ()
    return {names[each["metric"]]: each["limit_s"] for each in objectives if each["metric"] in names}


def load_of(level: Level) -> tuple[str, float]:
    """What was asked of the server: the axis' name and the level's place on it."""
    rate = level.get("rate")
    return ("requests/s offered", float(rate)) if rate is not None else ("streams", float(level["concurrency"]))


def name_of(level: Level) -> str:
    """As tables name it."""
    axis, value = load_of(level)
    return "1 stream" if (axis, value) == ("streams", 1) else f"{value:g} {axis.removesuffix(' offered')}"


def interval_of(level: Level, figure: str) -> tuple[float, float] | None:
    """Both ends, where the document has them and neither is open."""
    found = level.get("steady", {}).get("figures", {}).get(figure)
    return None if found is None or None in (found["low"], found["high"]) else (found["low"], found["high"])


_KINDS = {"streams": "streams", _ANSWERED: "answered"}


def _against_load(groups: Mapping[str, Sequence[Level]], slo: Mapping[str, float]) -> Iterator[Chart]:
    for axis, group in groups.items():
        kind = _KINDS.get(axis, "rate")
        yield _throughput(group, axis, kind)
        yield _goodput(group, axis, kind)
        for key, title in _LATENCIES:
            limits = ((f"limit {slo[key] * _MS:g} ms", slo[key] * _MS),) if key in slo else ()
            lines = (_percentile(group, axis, key, "p50"), _percentile(group, axis, key, "p99"))
            yield Chart(f"{key}-{kind}", f"{title.capitalize()}, ms", axis, "ms", lines, is_log_y=True, limits=limits)


def _place(level: Level, axis: str) -> float:
    return _answered(level) if axis == _ANSWERED else load_of(level)[1]


def _answered(level: Level) -> float:
    return float(level["pooled"]["request_rate"])


def _goodput(group: Sequence[Level], axis: str, kind: str) -> Chart:
    held = [level for level in group if "slo" in level]
    labels = tuple(map(name_of, held))
    good = Series(
        "within the SLO", tuple((_place(each, axis), each["slo"]["requests_per_s"]) for each in held), labels=labels
    )
    answered = Series("answered", tuple((_place(each, axis), _answered(each)) for each in held), labels=labels)
    return Chart(f"goodput-{kind}", "Goodput, requests per second", axis, "requests/s", (good, answered))


def _throughput(group: Sequence[Level], axis: str, kind: str) -> Chart:
    points, band = [], []
    for level in group:
        rates = level["output_tps"]
        points.append((_place(level, axis), float(rates["median"])))
        low, high = interval_of(level, "output_tps") or (rates["min"], rates["max"])
        band.append((float(low), float(high)))
    series = Series("output", tuple(points), tuple(band), tuple(map(name_of, group)))
    return Chart(f"throughput-{kind}", "Output tokens per second", axis, "tok/s", (series,))


def _percentile(group: Sequence[Level], axis: str, key: str, which: str) -> Series:
    known = [level for level in group if (level["pooled"].get(key) or {}).get(which)]
    points = tuple((_place(level, axis), level["pooled"][key][which] * _MS) for level in known)
    return Series(which, points, labels=tuple(map(name_of, known)))


def _pareto(levels: Sequence[Level]) -> Iterator[Chart]:
    known = [
        (1 / tpot["mean"], float(level["output_tps"]["median"]) / level.get("num_gpus", 1), name_of(level))
        for level in levels
        if (tpot := level["pooled"].get("tpot_s")) and tpot["mean"] > 0
    ]
    known.sort()
    series = Series("level", tuple((x, y) for x, y, _ in known), labels=tuple(name for _, _, name in known))
    has_gpu = any("num_gpus" in level for level in levels)
    y_label = "tok/s per GPU" if has_gpu else "tok/s of the machine"
    yield Chart("pareto", "What a user gets, and what the machine makes of it", "tok/s per user", y_label, (series,))


def _cdfs(levels: Sequence[Level]) -> Iterator[Chart]:
    for key, title in _LATENCIES:
        series = tuple(
            Series(
                name_of(level), tuple((value * _MS, 100 * share) for value, share in zip(curve, SHARES, strict=True))
            )
            for level in levels
            if (curve := level.get("curves", {}).get(key))
        )
        yield Chart(
            f"cdf-{key}", f"Share of requests within, {title}", "ms", "%", series, is_log_x=True, has_dots=False
        )


def _timelines(levels: Sequence[Level]) -> Iterator[Chart]:
    for place, level in enumerate(levels):
        found = next((run["timeline"] for run in level["runs"] if run.get("timeline")), None)
        if found:
            yield _timeline(f"timeline-{place}", f"Second by second, {name_of(level)}", found)


def _timeline(key: str, title: str, found: Mapping[str, Any]) -> Chart:
    names = (("sent", "requests/s due"), ("answered", "answered/s"), ("failed", "failed/s"), ("in_flight", "under way"))
    series = tuple(
        Series(name, tuple((place * found["width_s"], value) for place, value in enumerate(found[field])))
        for field, name in names
        if field != "failed" or any(found[field])
    )
    return Chart(key, title, "seconds", "requests", series, has_dots=False)


def _grouped(levels: Sequence[Level]) -> dict[str, list[Level]]:
    """By what is on the axis, in its order."""
    groups: dict[str, list[Level]] = {}
    for level in sorted(levels, key=lambda each: load_of(each)[1]):
        groups.setdefault(load_of(level)[0], []).append(level)
    return groups
