"""Where speculation pays, from what was measured on this machine. Pure.

A step that verifies drafts of depth d takes c times as long as one without, and gives a stream E tokens, 1 and the accepted ones,
instead of 1: it pays where E > c (the improvement factor of https://arxiv.org/abs/2211.17192, section 3.3). E depends on the text
and hardly on the batch; c grows with the batch, because the more streams there are, the less of a step is waiting for memory.
At depth 0 an engine that has a drafter still feeds it every token (so that it can go on when the batch shrinks): that rest is why
an engine whose depth varies is measured as a whole before it is chosen over one without a drafter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

MARGIN = 0.03
"""Less than this is no difference: a better rate has to be better by more, and so much may be lost for a simpler setting."""
Schedule = tuple[tuple[int, int, int], ...]
"""Depths by batch size: (first, last, depth), both ends included, without gaps, from 1; the last one goes on for ever."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What was measured at one number of streams."""

    tokens_per_s: float
    """Of all streams together, generated."""
    tokens_per_step: float = 1.0
    """Of one stream: 1 and the accepted ones."""
    spread: float = 0.0
    """How much less the worst round had than the best, which is the one that counts, 0 to 1."""


Rates = Mapping[int, Rate]
"""By number of streams."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How an engine speculates: to `depth`, or to that of `schedule` where there is one. Depth 0: it has no drafter at all."""

    depth: int
    schedule: Schedule = ()

    def depth_at(self, num_streams: int) -> int:
        for _, last, depth in self.schedule:
            if num_streams <= last:
                return depth
        return self.schedule[-1][2] if self.schedule else self.depth


OFF = Setting(0)


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that was measured of one engine. The number of streams is the batch size: each stream has one request at a time."""

    off: Rates
    on: Mapping[int, Rates]
    """By depth."""
    varied: Setting | None = None
    """A schedule that was measured as a whole."""
    varied_rates: Rates = field(default_factory=dict)


def tokens_per_step(num_generated: float, num_accepted: float) -> float:
    """Each step gives 1 token and the accepted ones, also where nothing was proposed in it."""
    return num_generated / max(1.0, num_generated - num_accepted)


def gain(measured: Measurement, depth: int, num_streams: int) -> float:
    """The rate at this depth over the rate without speculation."""
    return measured.on[depth][num_streams].tokens_per_s / measured.off[num_streams].tokens_per_s


def cost(measured: Measurement, depth: int, num_streams: int) -> float:
    """A step's time at this depth over its time without speculation: as many tokens a step are needed to break even."""
    return measured.on[depth][num_streams].tokens_per_step / gain(measured, depth, num_streams)


def best_depth(measured: Measurement, num_streams: int) -> int:
    """The depth with the best rate; 0 where none is better than none by more than the margin."""
    depth = max(sorted(measured.on), key=lambda depth: gain(measured, depth, num_streams), default=0)
    return depth if depth and gain(measured, depth, num_streams) > 1 + MARGIN else 0


def vary(measured: Measurement) -> Setting:
    """The best depth at each size."""
    return setting_of({num: best_depth(measured, num) for num in measured.off})


def setting_of(depths: Mapping[int, int]) -> Setting:
    """From the depth at each measured size; sizes between two measured ones go to the nearer, by ratio."""
    deepest = max(depths.values())
    if set(depths.values()) == {deepest}:
        return Setting(deepest)
    return Setting(deepest, tuple(_ranges(sorted(depths.items()))))


def choose(measured: Measurement) -> Setting:
    """The simplest setting that is nowhere worse than the best by more than the margin, else the one that loses least at its worst."""
    candidates = [OFF, *(Setting(depth) for depth in sorted(measured.on))]
    if measured.varied is not None:
        candidates.append(measured.varied)
    for setting in candidates:
        if worst_loss(measured, setting) <= MARGIN:
            return setting
    return min(candidates, key=lambda setting: worst_loss(measured, setting))


def worst_loss(measured: Measurement, setting: Setting) -> float:
    """What it has less than the better of speculation on and off, at the size where that is most; 0 to 1."""
    rates = rates_of(measured, setting)
    return max(1 - rates[num].tokens_per_s / _best_rate(measured, num) for num in measured.off)


def rates_of(measured: Measurement, setting: Setting) -> Rates:
    """As measured; KeyError for a setting that was not."""
    if setting == measured.varied:
        return measured.varied_rates
    return measured.on[setting.depth] if setting.depth else measured.off


def adjust(measured: Measurement, depth: int, tokens_per_step: float) -> Measurement:
    """What it would have been on texts of which so many tokens a step are accepted at `depth`: costs stay, yields follow."""
    accepted = [rate.tokens_per_step - 1 for rate in measured.on[depth].values()]
    mean = sum(accepted) / len(accepted)
    if mean <= 0:
        return measured
    scale = max(0.0, tokens_per_step - 1) / mean
    varied = measured.varied or OFF
    return replace(
        measured,
        on={depth: _scaled(rates, scale, Setting(depth)) for depth, rates in measured.on.items()},
        varied_rates=_scaled(measured.varied_rates, scale, varied),
    )


def advice(measured: Measurement, setting: Setting, num_streams: int, tokens_per_step: float) -> str:
    """What is lost under the present traffic; empty where speculation pays, or is off at this batch size."""
    depth = setting.depth_at(num_streams)
    if depth not in measured.on:
        return ""
    needed = cost(measured, depth, nearest(measured.off, num_streams))
    if tokens_per_step >= needed * (1 - MARGIN):
        return ""
    streams = "1 stream" if num_streams == 1 else f"{num_streams} streams"
    return f"speculation loses at {streams}: {tokens_per_step:.2f} tokens a step where {needed:.2f} are needed"


def is_beyond(measured: Measurement, num_streams: int) -> bool:
    """Whether so many streams are too far from what was measured for it to say anything."""
    return num_streams >= 2 * max(measured.off)


def nearest(sizes: Iterable[int], num_streams: int) -> int:
    """The measured size that is nearest by ratio; of two equally near ones the larger, where speculation pays less."""
    return min(sorted(sizes, reverse=True), key=lambda size: abs(math.log(size / max(1, num_streams))))


def setting_words(setting: Setting) -> str:
    """`off`; `depth 4`; `depth 4 up to 3 streams, 2 up to 11, then off`."""
    if not setting.depth:
        return "off"
    if not setting.schedule:
        return f"depth {setting.depth}"
    *parts, (_, _, rest) = setting.schedule
    words = [f"{depth or 'off'} up to {last}" for _, last, depth in parts]
    return f"depth by streams: {', '.join(words)}, then {rest or 'off'}"


def _best_rate(measured: Measurement, num_streams: int) -> float:
    rates = [measured.off, *measured.on.values()]
    return max(rate[num_streams].tokens_per_s for rate in rates)


def _ranges(depths: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    first = 1
    for (size, depth), (next_size, next_depth) in zip(depths, [*depths[1:], (0, -1)], strict=True):
        if depth == next_depth:
            continue
        # Up to the geometric mean; the last range ends where it was measured and is carried on.
        last = max(size, math.isqrt(size * next_size)) if next_size else max(size, first)
        yield first, last, depth
        first = last + 1


def _scaled(rates: Rates, scale: float, setting: Setting) -> Rates:
    return {num: _scale(rate, scale, setting.depth_at(num)) for num, rate in rates.items()}


def _scale(rate: Rate, scale: float, depth: int) -> Rate:
    tokens_per_step = min(depth + 1.0, 1 + (rate.tokens_per_step - 1) * scale)
    return replace(
        rate, tokens_per_step=tokens_per_step, tokens_per_s=rate.tokens_per_s * tokens_per_step / rate.tokens_per_step
    )
