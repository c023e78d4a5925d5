"""How requests reach the server, as options of `bench run` and `bench versus`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import arguments
from benchmarks.commands.profile_options import Profile, add_profile_options, profile_of
from benchmarks.loads import Load, OpenLoad, SavedLoad, TraceLoad
from benchmarks.statistics.settled import MIN_REPEATS
from benchmarks.sweep import RATE_ANSWERS, RATE_DURATION_S, Sweep
from benchmarks.traffic.arrivals import Arrivals, Spacing, Steady, parse_ramp
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.saved import read_requests
from benchmarks.traffic.traces import FORMATS, read_trace

DEFAULT_LEVELS = (1, 8, 32)
_OPEN = "--rate, --ramp or --trace"


def add_load_options(parser: argparse.ArgumentParser, default: Profile = Profile.CLOSED) -> None:
    """Closed loop, open loop, traces, from how many processes; `default` is what is run without any. Surveys too where that is
    one. No saved lists (`request_sources`).
    """
    add_profile_options(parser, default)
    parser.set_defaults(requests_from=None, save_requests=None)
    of_rates, of_loops = ("", "")
    if default.is_survey:
        of_rates, of_loops = (
            "; of each rate of a sweep (default 40, or seven answers)",
            ", of a sweep those of its closed loops",
        )
    add = parser.add_argument_group("load").add_argument
    add("--concurrency", type=arguments.levels, metavar="C,C", help="closed loop: streams (of --profile closed 1,8,32)")
    add(
        "--rate",
        type=arguments.rates,
        metavar="R,R",
        help="open loop: requests, or sessions, per second, each a load of its own",
    )
    add(
        "--ramp",
        metavar="KIND:A-B",
        help="open loop: linear:1-50 or exponential:1-50 requests/s, over --duration or --requests",
    )
    add(
        "--arrivals",
        metavar="KIND",
        help="of an open loop: constant, poisson, or gamma:B with vLLM's burstiness (default poisson)",
    )
    add(
        "--duration",
        type=arguments.number(0.01),
        metavar="S",
        help=f"of an open loop: seconds in which requests come (or --requests){of_rates}",
    )
    add("--trace", type=Path, metavar="FILE", help="open loop: replay recorded arrivals and lengths")
    add("--trace-format", choices=list(FORMATS), help="of --trace")
    add(
        "--trace-scale",
        type=arguments.number(1e-6),
        metavar="X",
        help="multiply its gaps: 0.5 is twice as fast (default 1)",
    )
    add(
        "--requests",
        type=arguments.whole(1),
        metavar="N",
        help=f"per load and repeat{of_loops} (default 4 per stream, at least 8)",
    )
    add("--processes", type=arguments.whole(1), default=1, metavar="N", help="that send the requests (default 1)")
    add(
        "--max-connections",
        type=arguments.whole(1),
        metavar="N",
        help="open at once; more requests wait (default any number)",
    )


def add_repeats_option(parser: argparse.ArgumentParser) -> None:
    """Of `bench run`; `repeats_of` says what holds."""
    parser.add_argument(
        "--repeats",
        type=arguments.whole(1),
        metavar="R",
        help="of each load, those of named loads interleaved; with fewer than three nothing is settled "
        f"(default {MIN_REPEATS}; 1 with --profile capacity, --requests-from or --save-requests)",
    )


def repeats_of(options: argparse.Namespace) -> int:
    """As asked for, else as many as an interval needs. But a list that is sent again byte for byte would be answered from a prefix
    cache, one that is saved is one, and the search for a capacity measures a rate as often as its verdict takes.
    """
    if options.repeats is not None:
        return int(options.repeats)
    is_one = options.requests_from or options.save_requests or profile_of(options) is Profile.CAPACITY
    return 1 if is_one else MIN_REPEATS


def levels_of(options: argparse.Namespace) -> tuple[int, ...]:
    """Streams of closed loops; of other loads, with how many to warm up."""
    if profile_of(options).is_survey:
        return (num_streams_of(options),)
    return tuple(options.concurrency or (DEFAULT_LEVELS if is_closed(options) else (8,)))


def is_closed(options: argparse.Namespace) -> bool:
    """Whether the run is the plain one, of closed loops."""
    return profile_of(options) is Profile.CLOSED and not options.requests_from


def num_streams_of(options: argparse.Namespace) -> int:
    """At a survey's full throughput."""
    return options.sweep_streams or Sweep().num_streams


def sweep_of(options: argparse.Namespace) -> Sweep:
    """The shape of a sweep; raises WorkloadError."""
    return Sweep(
        options.sweep_rates or Sweep().num_rates,
        options.duration or RATE_DURATION_S,
        num_streams_of(options),
        spacing_of(options),
        0.0 if options.duration else RATE_ANSWERS,
    )


def loads_of(options: argparse.Namespace) -> tuple[Load, ...]:
    """All but closed loops, which their levels stand for. Raises WorkloadError, for options that do not go together too."""
    _check(options)
    if options.requests_from:
        return (_saved(options),)
    if options.trace:
        return (_trace(options),)
    if options.ramp:
        return (_ramp(options),)
    return tuple(
        OpenLoad(Arrivals(Steady(rate), spacing_of(options)), options.requests, options.duration)
        for rate in options.rate or ()
    )


def spacing_of(options: argparse.Namespace) -> Spacing:
    """Of an open loop's arrivals; raises WorkloadError."""
    return Spacing.parse(options.arrivals or "poisson")


def _ramp(options: argparse.Namespace) -> Load:
    if options.duration is not None:
        return OpenLoad(
            Arrivals(parse_ramp(options.ramp, options.duration), spacing_of(options)), None, options.duration
        )
    mean_rate = parse_ramp(options.ramp, 1.0).mean_rate
    profile = parse_ramp(options.ramp, options.requests / mean_rate)
    return OpenLoad(Arrivals(profile, spacing_of(options)), options.requests)


def _trace(options: argparse.Namespace) -> Load:
    trace = read_trace(options.trace, options.trace_format).scaled(options.trace_scale or 1.0)
    return TraceLoad(trace.cut(options.requests, options.duration))


def _saved(options: argparse.Namespace) -> Load:
    saved = read_requests(options.requests_from)
    streams = options.concurrency[0] if options.concurrency else 0
    if not streams and any(request.due_s is None for request in saved if request.turn == 0):
        raise WorkloadError(
            f"{options.requests_from} was saved from a closed loop: say with how many streams, --concurrency C"
        )
    if streams:
        saved = [replace(request, due_s=None) for request in saved]
    return SavedLoad(options.requests_from.name, tuple(saved), streams)


def _check(options: argparse.Namespace) -> None:
    _exclude(options, ("rate", "ramp", "trace", "requests_from"))
    for name in ("rate", "ramp", "trace"):
        _exclude(options, ("concurrency", name))
    is_survey = profile_of(options).is_survey
    is_open = bool(options.rate or options.ramp or is_survey)
    _need(options, "arrivals", is_open, "--rate or --ramp")
    _need(options, "duration", is_open or options.trace, _OPEN)
    for name in ("trace_format", "trace_scale"):
        _need(options, name, options.trace, "--trace")
    _need(options, "max_connections", not is_closed(options), _OPEN)
    if options.trace and not options.trace_format:
        raise WorkloadError(f"--trace needs --trace-format: one of {', '.join(FORMATS)}")
    if (options.rate or options.ramp) and (options.requests is None) == (options.duration is None):
        raise WorkloadError("an open loop needs either --duration S or --requests N")
    if options.requests_from:
        _check_saved(options)
    if options.think_time and not (is_closed(options) or options.turns):
        raise WorkloadError(
            "--think-time goes with a closed loop or with --turns: an open loop does not wait for users"
        )
    if options.save_requests and (repeats_of(options) > 1 or is_survey or _num_loads(options) > 1):
        raise WorkloadError("--save-requests saves one list: name one load, and no --repeats")
    if profile_of(options) is Profile.CAPACITY and repeats_of(options) > 1:
        raise WorkloadError("--profile capacity measures a rate as often as its verdict takes: leave --repeats out")


def _check_saved(options: argparse.Namespace) -> None:
    for name in ("requests", "save_requests"):
        if getattr(options, name) is not None:
            raise WorkloadError(f"--requests-from sends the whole list as it is: leave --{name.replace('_', '-')} out")
    if options.concurrency and len(options.concurrency) > 1:
        raise WorkloadError("--requests-from goes with one level of --concurrency")


def _num_loads(options: argparse.Namespace) -> int:
    return len(options.rate) if options.rate else len(levels_of(options)) if is_closed(options) else 1


def _exclude(options: argparse.Namespace, names: Sequence[str]) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    if len(given) > 1:
        raise WorkloadError(f"{given[0]} and {given[1]} are different loads: choose one")


def _need(options: argparse.Namespace, name: str, is_there: object, other: str) -> None:
    if getattr(options, name) is not None and not is_there:
        raise WorkloadError(f"--{name.replace('_', '-')} goes with {other}")
