"""What users are promised, as an option of `bench run`."""

import argparse
from typing import Any

from benchmarks import arguments, metrics
from benchmarks.commands.profile_options import Profile, profile_of
from benchmarks.statistics.slo import PRESETS, Slo, SloError, parse_slo
from benchmarks.workload import Endpoint, Workload

_BETWEEN_TOKENS = ("tpot", "itl")


def add_slo_options(parser: argparse.ArgumentParser) -> None:
    """The promise, what it is paid with, and the definitions behind both."""
    add = parser.add_argument_group("verdict").add_argument
    add(
        "--slo",
        metavar="SLO",
        help="service level objective, such as ttft_p99<500ms,tpot_p99<30ms, or MLPerf's: "
        f"{', '.join(PRESETS)}; says the goodput of each load, whether the SLO is shown to hold there, and up to which rate",
    )
    add("--gpus", type=arguments.whole(1), metavar="N", help="behind the endpoint: rates per GPU, too")
    add(
        "--energy-gpus",
        type=_cards,
        metavar="I,I|all",
        help="GPUs of this machine, as nvidia-smi numbers them, on which all engines behind the endpoint run: the joules that they "
        "take, and joules per output token",
    )
    add("--help-metrics", action=_Definitions, help="print the definitions of all figures, and exit")


def slo_of(options: argparse.Namespace, workload: Workload) -> Slo | None:
    """Raises SloError, for promises that these requests cannot keep or break too."""
    kind = profile_of(options)
    if options.slo is None:
        if kind is Profile.CAPACITY:
            raise SloError("--profile capacity needs --slo, such as --slo interactive")
        return None
    slo = parse_slo(options.slo)
    if kind is Profile.CAPACITY and any(objective.percentile is None for objective in slo.objectives):
        raise SloError("--profile capacity needs a share for every limit: write --slo ttft_p99<500ms")
    for objective in slo.objectives:
        if objective.metric in _BETWEEN_TOKENS and (reason := _no_tokens_between(options, workload)):
            raise SloError(f"--slo {objective}: {reason}, so there is no {objective.metric}: leave it out")
    return slo


def _cards(text: str) -> tuple[int, ...]:
    """`0,1`; of `all` none is named."""
    if text == "all":
        return ()
    found = arguments.cores(text)
    if not found:
        raise argparse.ArgumentTypeError("names no GPU: write for example 0,1 or all")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a GPU twice, and its energy counts once")
    return found


def _no_tokens_between(options: argparse.Namespace, workload: Workload) -> str | None:
    if options.requests_from or options.trace:
        return None  # they say themselves how long answers are
    if workload.endpoint is Endpoint.EMBEDDINGS:
        return "embeddings come in one piece"
    return "answers have one token" if workload.output_tokens.high == 1 else None


class _Definitions(argparse.Action):
    """As argparse's own version action."""

    def __init__(self, option_strings: Any, dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        print(metrics.definitions())
        parser.exit()
