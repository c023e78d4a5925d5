"""A chart of lines or points as inline SVG, drawn with the page's colours. Pure: numbers in, SVG out."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.pages.scale import Scale, fitted

WIDTH, HEIGHT = 460.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 10.0, 38.0
NUM_STYLES = 6
STYLE = """
figure { margin: 0; min-width: 0 }
figcaption { font-weight: 600; margin-bottom: .3rem }
svg { width: 100%; max-width: 44rem; height: auto; display: block; overflow: visible }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums }
svg .soft { fill: var(--soft) } svg .end { text-anchor: end } svg .middle { text-anchor: middle }
svg .grid { stroke: var(--line); stroke-width: 1 }
svg .limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 4 3 }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
svg .band { stroke: none; opacity: .18 }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; margin: .2rem 0 0; padding: 0; list-style: none }
.legend i { display: inline-block; width: 1.4rem; height: 0; border-top: 3px solid; vertical-align: middle; margin-right: .35rem }
""" + "\n".join(
    f"svg .s{number} {{ stroke: var(--s{number}) }} svg circle.s{number}, svg .band.s{number} {{ fill: var(--s{number}) }} "
    f".legend .s{number} {{ border-color: var(--s{number}) }}"
    for number in range(NUM_STYLES)
)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points in its order; `band` is the interval of each point's y, None where it is not known."""

    name: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float] | None, ...] = ()
    labels: tuple[str, ...] = ()
    """What a pointer on a point is told, before its values."""


@dataclass(frozen=True, slots=True)
class Chart:
    """`key` names the figure within its page. A limit is a dashed line at a y with its name."""

    key: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    is_log_y: bool = False
    is_log_x: bool = False
    has_dots: bool = True
    limits: tuple[tuple[str, float], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing to draw."""
        return not any(series.points for series in self.series)


def draw(chart: Chart) -> str:
    """The figure with its legend. Raises ValueError for a chart that has no point."""
    if chart.is_empty:
        raise ValueError(f"the chart {chart.key!r} has no point")
    x, y = _scales(chart)
    parts = [*_axes(chart, x, y)]
    for number, series in enumerate(chart.series):
        parts += _drawn(series, f"s{number % NUM_STYLES}", x, y, chart)
    words = "; ".join(_words(series) for series in chart.series if series.points)
    return (
        f'<figure id="{chart.key}"><figcaption id="{chart.key}-title">{_text(chart.title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-labelledby="{chart.key}-title" aria-describedby="{chart.key}-words">'
        f'<desc id="{chart.key}-words">{_text(words)}</desc>{"".join(parts)}</svg>{_legend(chart)}</figure>'
    )


def number(value: float) -> str:
    """Short, and round where it is long: 1234.5 is 1,234."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _scales(chart: Chart) -> tuple[Scale, Scale]:
    xs = [x for series in chart.series for x, _ in series.points]
    ys = [y for series in chart.series for _, y in series.points]
    ys += [end for series in chart.series for ends in series.band if ends for end in ends]
    ys += [at for _, at in chart.limits]
    return fitted(xs, _LEFT, WIDTH - _RIGHT, chart.is_log_x), fitted(ys, HEIGHT - _BOTTOM, _TOP, chart.is_log_y)


def _axes(chart: Chart, x: Scale, y: Scale) -> Iterator[str]:
    for tick in y.ticks():
        yield _line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid")
        yield _label(_LEFT - 5, y(tick) + 4, number(tick), "end soft")
    for tick in x.ticks():
        yield _line(x(tick), HEIGHT - _BOTTOM, x(tick), HEIGHT - _BOTTOM + 4, "grid")
        yield _label(x(tick), HEIGHT - _BOTTOM + 16, number(tick), "middle soft")
    yield _label((_LEFT + WIDTH) / 2, HEIGHT - 5, chart.x_label, "middle soft")
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    yield (
        f'<text x="11" y="{middle:.1f}" class="middle soft" transform="rotate(-90 11 {middle:.1f})">'
        f"{_text(chart.y_label)}</text>"
    )
    for name, at in chart.limits:
        yield _line(_LEFT, y(at), WIDTH - _RIGHT, y(at), "limit")
        yield _label(WIDTH - _RIGHT, y(at) - 4, name, "end")


def _drawn(series: Series, style: str, x: Scale, y: Scale, chart: Chart) -> Iterator[str]:
    yield from _bands(series, style, x, y)
    yield f'<polyline points="{_joined((x(at), y(value)) for at, value in series.points)}" class="{style}"/>'
    if not chart.has_dots:
        return
    for place, (at, value) in enumerate(series.points):
        told = f"{series.labels[place]}: " if series.labels else ""
        said = f"{series.name}: {told}{chart.x_label} {number(at)}, {chart.y_label} {number(value)}"
        yield f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3.5" class="{style}"><title>{_text(said)}</title></circle>'


def _bands(series: Series, style: str, x: Scale, y: Scale) -> Iterator[str]:
    known = [(at, ends) for (at, _), ends in zip(series.points, series.band, strict=False) if ends]
    if len(known) > 1:
        edge = [(x(at), y(low)) for at, (low, _) in known] + [(x(at), y(high)) for at, (_, high) in reversed(known)]
        yield f'<polygon points="{_joined(edge)}" class="band {style}"/>'


def _words(series: Series) -> str:
    (x0, y0), (x1, y1) = series.points[0], series.points[-1]
    return f"{series.name}: {number(y0)} at {number(x0)}, {number(y1)} at {number(x1)}"


def _legend(chart: Chart) -> str:
    if len(chart.series) < 2:
        return ""
    entries = (
        f'<li><i class="s{number % NUM_STYLES}"></i>{_text(series.name)}</li>'
        for number, series in enumerate(chart.series)
    )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _joined(points: Iterator[tuple[float, float]] | Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _label(x: float, y: float, value: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{_text(value)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _text(value: str) -> str:
    return html.escape(value)
