"""What requests share, whom they ask and when their clients leave, as options of `bench run`."""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import arguments
from benchmarks.traffic.adapters import AdapterMix, parse_adapters
from benchmarks.traffic.cancellations import Cancellations
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.pauses import Pause
from benchmarks.traffic.prefixes import SharedPrefix
from benchmarks.traffic.structured import schema_fields, tool_fields
from benchmarks.workload import Endpoint

NAMES = (
    "embeddings", "shared_prefix", "turns", "think_time", "adapters", "zipf", "base_share", "cold_share", "adapter_churn",
    "json_schema", "tools", "tool_choice", "cancel_rate", "cancel_after",
)  # fmt: skip
"""Of all these options, as the parser keeps them."""


def add_traffic_options(parser: argparse.ArgumentParser) -> None:
    """All of NAMES."""
    add = parser.add_argument_group("traffic").add_argument
    add("--embeddings", action="store_true", help="the same as --endpoint embeddings")
    add(
        "--shared-prefix",
        metavar="GxN[@S]",
        help="G prefixes of N tokens, each shared by some of the requests (or of a share S)",
    )
    add(
        "--turns",
        type=arguments.length,
        metavar="N|A-B",
        help="requests of a session; each holds all that was said before",
    )
    add(
        "--think-time",
        metavar="S|exp:S",
        help="pause of a user after an answer: fixed, or exponential of that mean (default 0)",
    )
    add("--adapters", metavar="A,B|A=W,B=W", help="models to ask for, by rank or with weights; --model is their base")
    add(
        "--zipf",
        type=arguments.number(0),
        metavar="S",
        help="adapters' popularity: 1 / rank^S; 0 for all alike (default 1)",
    )
    add(
        "--base-share",
        type=arguments.number(0, 1),
        metavar="X",
        help="share of requests for the base model (default 0)",
    )
    add(
        "--cold-share",
        type=arguments.number(0, 1),
        metavar="X",
        help="of the rest, share for the adapter unused longest (default 0)",
    )
    add(
        "--adapter-churn",
        type=arguments.whole(1),
        metavar="N",
        help="deal popularity out anew every N requests (default never)",
    )
    structure = parser.add_mutually_exclusive_group()
    structure.add_argument(
        "--json-schema", type=Path, metavar="FILE", help="answers must follow this schema; ends are the model's"
    )
    structure.add_argument(
        "--tools", type=Path, metavar="FILE", help="tools, a JSON list as the API takes it; ends are the model's"
    )
    add("--tool-choice", choices=("auto", "required", "none"), help="with --tools (default auto)")
    add("--cancel-rate", type=arguments.number(0, 1), metavar="X", help="share of requests whose client leaves early")
    add(
        "--cancel-after",
        metavar="K|Ss",
        help="when: after K events of the stream, or S seconds, as 0.5s (default 1 event)",
    )


def traffic_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the workload; raises WorkloadError."""
    _check(options)
    fields: dict[str, Any] = {
        "prefix": SharedPrefix.parse(options.shared_prefix) if options.shared_prefix else None,
        "mix": _mix(options),
        "turns": options.turns,
        "pause": Pause.parse(options.think_time or "0"),
        "extra": _structure(options),
    }
    if options.cancel_rate is not None:
        fields["cancellations"] = Cancellations.parse(options.cancel_rate, options.cancel_after or "1")
    if options.embeddings:
        fields["endpoint"] = Endpoint.EMBEDDINGS
    if options.ignore_eos is None:
        # A model told to go on after its JSON is complete can only break it.
        fields["ignore_eos"] = not (options.json_schema or options.tools)
    return fields


def _mix(options: argparse.Namespace) -> AdapterMix | None:
    if options.adapters is None:
        return None
    names, weights = parse_adapters(options.adapters)
    more = (options.base_share or 0.0, options.cold_share or 0.0, options.adapter_churn or 0)
    if weights is None:
        weights = AdapterMix.zipf(names, 1.0 if options.zipf is None else options.zipf).weights
    elif options.zipf is not None:
        raise WorkloadError("--zipf gives the weights that --adapters has already: write their names only")
    return AdapterMix(names, weights, *more)


def _structure(options: argparse.Namespace) -> dict[str, Any]:
    if options.json_schema:
        return schema_fields(options.json_schema)
    return tool_fields(options.tools, options.tool_choice or "auto") if options.tools else {}


def _check(options: argparse.Namespace) -> None:
    """No option without the one that it says more about."""
    for name in ("zipf", "base_share", "cold_share", "adapter_churn"):
        if getattr(options, name) is not None and options.adapters is None:
            raise WorkloadError(f"--{name.replace('_', '-')} says how --adapters are asked: name them")
    if options.tool_choice and not options.tools:
        raise WorkloadError("--tool-choice goes with --tools")
    if options.cancel_after and options.cancel_rate is None:
        raise WorkloadError("--cancel-after goes with --cancel-rate")
    if (options.json_schema or options.tools) and (options.embeddings or options.endpoint != "chat"):
        raise WorkloadError("--json-schema and --tools are fields of the chat endpoint")
