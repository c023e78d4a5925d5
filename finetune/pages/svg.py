"""Drawings as inline SVG, 400 units wide: as read on a phone, larger on a desk. Colours come from the page's theme."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

WIDTH = 400.0
STYLE = """
figure { margin: 0; min-width: 0 }
figcaption { font-weight: 600; margin-bottom: .25rem }
svg { width: 100%; max-width: 34rem; height: auto; display: block; overflow: visible }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums }
svg text { paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round }
svg .dim { fill: var(--soft) }
svg .end { text-anchor: end }
svg .middle { text-anchor: middle }
svg .axis { stroke: var(--line); stroke-width: 1 }
svg .zero { stroke: var(--soft); stroke-width: 1 }
svg .limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 3 2 }
svg .one { fill: var(--one) } svg .two { fill: var(--two) }
svg .line-one { fill: none; stroke: var(--one); stroke-width: 2; stroke-dasharray: 5 3 }
svg .line-two { fill: none; stroke: var(--two); stroke-width: 2 }
svg .good { stroke: var(--good); fill: var(--good) } svg .bad { stroke: var(--bad); fill: var(--bad) }
svg .unsure { stroke: var(--warn); fill: var(--warn) }
svg .interval { stroke-width: 3; stroke-linecap: round }
"""


def figure(key: str, title: str, words: str, height: float, parts: Iterable[str]) -> str:
    """`words` say what is seen, for whom does not see it; `key` is unlike that of other figures of the page."""
    return (
        f'<figure><figcaption id="{key}-title">{_text(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="{key}-title" aria-describedby="{key}-words">'
        f'<desc id="{key}-words">{_text(words)}</desc>{"".join(parts)}</svg></figure>'
    )


def label(x: float, y: float, value: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{_text(value)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def box(x: float, y: float, width: float, height: float, style: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" class="{style}"/>'
    )


def dot(x: float, y: float, style: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{style}"/>'


def trace(points: Sequence[tuple[float, float]], style: str) -> str:
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{style}"/>'


def legend(y: float, names: Sequence[str], are_lines: bool = False) -> str:
    """What is live, then the candidate, each on a line of its own."""
    parts = []
    for place, (each, style) in enumerate(zip(names, ("one", "two"), strict=True)):
        at = y + 15 * place
        sample = line(0, at - 4, 22, at - 4, f"line-{style}") if are_lines else box(0, at - 8, 10, 8, style)
        parts.append(sample + label(28 if are_lines else 15, at, short(each, 60)))
    return "".join(parts)


def short(value: str, limit: int) -> str:
    return value if len(value) <= limit else f"{value[: limit - 1]}…"


def ticks(low: float, high: float, num: int = 5) -> list[float]:
    """Round numbers within, about so many."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / num
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * place, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(value: str) -> str:
    return html.escape(value)
