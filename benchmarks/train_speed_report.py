"""The speed of training for people: Markdown of its result file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.train_speed_plan import ratios

Found = Mapping[str, Any]
_GB = 1e9
_COLUMNS = (
    "turn", "what it sets", "real tok/s", "of an update, median", "of plain", "ms an update", "torch's peak, GB", "driver's, GB",
    "padding", "of the limit with recomputation",
)  # fmt: skip


def markdown(result: Found) -> list[str]:
    """Every turn, in the order in which it was run, then what the card allows."""
    return [
        *_head(result),
        "",
        *_table(result),
        *_notes(result["turns"]),
        "",
        *_limit(result),
        *_failures(result["turns"]),
    ]


def _head(result: Found) -> Iterator[str]:
    machine, gpu, plan, data = result["environment"], result["gpu"], result["plan"], result["data"]
    where = (
        f"One {gpu['name']}, driver {gpu['driver']}" if gpu else f"{machine['cpu']}, {machine['cores']} cores, no GPU"
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield f"{where}; {machine['date']}. {versions}."
    yield ""
    yield (
        f"QLoRA (NF4, double quantisation) of `{plan['model']}`, rank {plan['rank']} on all linear layers, sequences of "
        f"{plan['sequence_len']:,} tokens, every token trained. {data['num_rows']:,} rows of lognormal lengths: mean {data['mean']:g} "
        f"tokens, median {data['median']:g}, longest {data['max']:,}. {plan['counted']} updates counted after {plan['warm_up']} that "
        f"are not. `plain`: batches of {plan['batch']} padded rows, {plan['accumulation']} an update; the others: `forgegate train`."
    )


def _table(result: Found) -> Iterator[str]:
    turns = [turn for turn in result["turns"] if "tok_s" in turn and not turn["is_profiled"]]
    allowed = result["limit"]["recomputed"]["tok_s"]
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for turn, ratio in zip(turns, ratios(turns), strict=True):
        settings = ", ".join(f"`{name}: {value}`" for name, value in turn["settings"].items())
        driver = turn["nvml"] and turn["nvml"]["own_peak_bytes"]
        padding = "-" if turn["padding_share"] is None else f"{turn['padding_share']:.1%}"
        yield (
            f"| {turn['turn']} | {settings or '-'} | {turn['tok_s']:,.0f} | {turn['median_tok_s']:,.0f} | "
            f"{'-' if ratio is None else f'{ratio:.2f}x'} | {turn['ms_per_update']:,.0f} | {_gb(turn['peak_bytes'])} | {_gb(driver)} | "
            f"{padding} | {turn['tok_s'] / allowed:.0%} |"
        )


def _gb(value: int | None) -> str:
    return "-" if value is None else f"{value / _GB:.1f}"


def _notes(turns: Sequence[Found]) -> Iterator[str]:
    """Which attention each turn had, and what it said of itself."""
    said = {
        turn["variant"]: [f"attention {turn['attention']}, {turn['dtype']}", *turn["notes"]]
        for turn in turns
        if "tok_s" in turn
    }
    yield from ("", *(f"- {name}: {'; '.join(words)}" for name, words in said.items()))


def _limit(result: Found) -> Iterator[str]:
    limit, speed = result["limit"], result["products"]
    yield (
        f"This machine multiplies matrices of the model's linear layers at {speed['flops_per_s'] / 1e12:,.3g} TFLOP/s "
        f"({speed['dtype']}, {speed['tokens']:,} tokens). {limit['linear_parameters']:,} weights in linear layers, "
        f"{limit['head_parameters']:,} in the head; a token sees {limit['context_tokens']:g} on average."
    )
    yield ""
    yield "| if nothing but products took time | GFLOP a token | linear layers | head | attention | adapters | tok/s |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for kind, words in (("recomputed", "activations computed again"), ("kept", "activations kept")):
        of, parts = limit[kind], limit[kind]["parts_gflop"]
        cells = " | ".join(f"{parts[part]:,.2f}" for part in ("linear", "head", "attention", "adapter"))
        yield f"| {words} | {of['gflop_per_token']:,.2f} | {cells} | {of['tok_s']:,.0f} |"


def _failures(turns: Sequence[Found]) -> Iterator[str]:
    for turn in turns:
        if "error" in turn:
            yield from ("", f"{turn['turn']} failed: {turn['error'].splitlines()[0]}")
        elif turn.get("is_left"):
            yield from ("", f"{turn['turn']} was not begun.")
