"""Requests that are not drawn by the options: recorded traces, and saved lists, of `bench run` alone; what they leave to decide."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import traffic_options
from benchmarks.loads import Load
from benchmarks.traffic.errors import WorkloadError

_WORKLOAD_NAMES = (
    "endpoint", "input_tokens", "output_tokens", "prompt_form", "vocab_size", "prompts", "ignore_eos", "min_tokens", "temperature",
    "body", "model",
)  # fmt: skip
_TRACED_NAMES = ("input_tokens", "output_tokens", "prompts", "turns")


def add_saved_options(parser: argparse.ArgumentParser) -> None:
    """Send a saved list, save one."""
    add = parser.add_argument_group("saved lists").add_argument
    add(
        "--requests-from",
        type=Path,
        metavar="FILE",
        help="send a saved list: at its own times, or with --concurrency C",
    )
    add("--save-requests", type=Path, metavar="FILE", help="write the list that is sent; of one load and one repeat")


def remember_defaults(parser: argparse.ArgumentParser) -> None:
    """Of all options that say what is asked; to be called when the parser has them."""
    names = (*_WORKLOAD_NAMES, *traffic_options.NAMES)
    parser.set_defaults(defaults={name: str(parser.get_default(name)) for name in names})


def refuse_unheard(options: argparse.Namespace) -> None:
    """Raises WorkloadError for options that a saved list or a trace leaves nothing to decide for."""
    names: tuple[str, ...] = ()
    if options.requests_from:
        source, names = "--requests-from", (*_WORKLOAD_NAMES, *traffic_options.NAMES)
    elif options.trace:
        source, names = "--trace", _TRACED_NAMES
    for name in names:
        if str(getattr(options, name)) != options.defaults[name]:
            raise WorkloadError(f"{source} says what is asked: leave --{name.replace('_', '-')} out")


def tell_left_out(loads: Sequence[Load]) -> None:
    """What of a trace is not sent, on standard error."""
    for load in loads:
        if left_out := load.as_dict().get("left_out"):
            sys.stderr.write(f"{load.label}: {left_out} recorded failures are left out\n")
