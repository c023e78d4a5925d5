"""Error rates of the gate as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COMMAND = "python -m finetune.gating.simulation --out benchmarks/results/gate-errors.json"
_HEADS = {
    True: ("setting", "rule", "GO (power)", "NO-GO (false)", "INCONCLUSIVE", "items"),
    False: ("setting", "rule", "GO (false)", "95 %", "NO-GO", "INCONCLUSIVE", "items"),
}
_TERMS = """`items`: mean number asked for each task or skill. Likeness: correlation of the two models' scores of an item.
Icc: correlation of what becomes of two items of a cluster; at 0.95 clusters are lost as a whole or not at all. `N clusters`: more items
come from the same ones; `clusters of N`: they come in new ones. Closed table: the clusters are all that there are, and one of them has
all of the change.

With few clusters there is little proof of what others are like, of which one in thirty that is lost as a whole takes away 3 points. What is
INCONCLUSIVE then is the price of false GO that stay below 5 % with such clusters too. An upper bound supposes that clusters not seen gain
no more than those that were: where one of 42 is gained as a whole, and few are seen, NO-GO is often wrong.
"""


def as_markdown(content: Mapping[str, Any]) -> str:
    """Of what `simulation` writes as JSON."""
    return "\n".join(_lines(content)) + "\n"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    yield "# Error rates of the gate\n"
    yield (
        f"False GO at most 5 % in every setting: **{'met' if content['is_met'] else 'NOT met'}**. "
        f"Worst of {content['settings_where_go_is_false']} settings in which a GO is false: {content['worst_false_go']:.2%}.\n"
    )
    looks, versions = ", ".join(f"{items:,}" for items in content["looks"]), content["environment"]
    yield (
        f"{content['pairs']:,} synthetic pairs of models a setting, seed {content['seed']}; looks at {looks} items, "
        f"{content['max_drop']:g} points may be lost, each bound at {content['confidence']:.0%}. `{COMMAND}` makes this anew "
        f"({content['seconds']:.0f} s of computing here: Python {versions['python']}, numpy {versions['numpy']}).\n"
    )
    yield _TERMS
    for is_go, title in ((False, "A GO would be false"), (True, "A GO is right")):
        yield f"## {title}\n"
        rows = [one for one in content["settings"] if (one["truth"] == "GO") == is_go]
        for group in dict.fromkeys(one["group"] for one in rows):
            yield from _table(group, [one for one in rows if one["group"] == group], is_go)


def _table(group: str, rows: Sequence[Mapping[str, Any]], is_go: bool) -> Iterator[str]:
    heads = _HEADS[is_go]
    yield f"### {group}\n"
    yield f"| {' | '.join(heads)} |"
    yield f"|---|---|{'--:|' * (len(heads) - 2)}"
    for one in rows:
        low, high = one["false_go_interval"] or (0.0, 0.0)
        between = () if is_go else (f"{low:.1%} to {high:.1%}",)
        shares = (f"{one['go']:.1%}", *between, f"{one['no_go']:.1%}", f"{one['inconclusive']:.1%}")
        yield f"| {' | '.join((one['name'], one['rule'], *shares, format(one['mean_items'], ',.0f')))} |"
    yield ""
