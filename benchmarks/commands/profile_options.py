"""What kind of campaign a run is, as an option of `bench run` and `bench versus`, and the shape of a survey, of `bench run` alone."""

import argparse
from enum import StrEnum

from benchmarks import arguments
from benchmarks.traffic.errors import WorkloadError

MAX_PRECISION = 0.5


class Profile(StrEnum):
    """Which loads are measured."""

    SWEEP = "sweep"
    CAPACITY = "capacity"
    CLOSED = "closed"
    OPEN = "open"

    @property
    def is_survey(self) -> bool:
        """True when the rates follow from what is measured."""
        return self in (Profile.SWEEP, Profile.CAPACITY)


_NAMED = {"concurrency": Profile.CLOSED, "rate": Profile.OPEN, "ramp": Profile.OPEN, "trace": Profile.OPEN}
"""Options that name a load, and what they make of the run."""
_SURVEY = ("sweep_rates", "sweep_streams", "capacity_rates", "capacity_precision")
"""Options of a survey; None without them."""


def add_profile_options(parser: argparse.ArgumentParser, default: Profile) -> None:
    """`default` is what a run without any load is; where that is a survey, surveys can be asked for."""
    add = parser.add_argument_group("profile").add_argument
    kinds = [each for each in Profile if default.is_survey or not each.is_survey]
    surveys = (
        "sweep: one at a time, then full throughput, then rates in between until one is too much; capacity: the highest rate at "
        "which --slo holds; "
    )
    add(
        "--profile",
        choices=[each.value for each in kinds],
        help=f"{surveys if default.is_survey else ''}closed: --concurrency; open: --rate, --ramp or --trace "
        f"(default: as the load that is named, or {default.value})",
    )
    parser.set_defaults(default_profile=default.value, slo=None, **dict.fromkeys(_SURVEY))
    if default.is_survey:
        _add_survey_options(parser)


def _add_survey_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("survey").add_argument
    add("--sweep-rates", type=arguments.whole(1), metavar="N", help="of a sweep, between both ends (default 5)")
    add(
        "--sweep-streams",
        type=arguments.whole(2),
        metavar="N",
        help="at full throughput, of sweep and capacity (default 64)",
    )
    add(
        "--capacity-rates",
        type=arguments.whole(1),
        metavar="N",
        help="tried at most in search of the capacity, after those of a sweep (default 8)",
    )
    add(
        "--capacity-precision",
        type=arguments.number(0.001, MAX_PRECISION),
        metavar="X",
        help="the search ends when it knows the capacity within this share (default 0.05)",
    )


def profile_of(options: argparse.Namespace) -> Profile:
    """As the options say; raises WorkloadError where they contradict each other."""
    named = next((name for name in (*_NAMED, "requests_from") if getattr(options, name)), None)
    if options.profile is None:
        kind = _NAMED.get(named, Profile.OPEN) if named else Profile(options.default_profile)
        if options.requests_from and options.concurrency:
            kind = Profile.CLOSED
    else:
        kind = Profile(options.profile)
        if named and _NAMED.get(named) is not kind:
            raise WorkloadError(
                f"--{named.replace('_', '-')} and --profile {kind.value} are different loads: choose one"
            )
        if kind is Profile.OPEN and not named:
            raise WorkloadError("--profile open needs its load: --rate, --ramp or --trace")
    _check_shape(options, kind)
    return kind


def _check_shape(options: argparse.Namespace, kind: Profile) -> None:
    may_search = kind is Profile.CAPACITY or (kind is Profile.SWEEP and options.slo)
    goes_with = {
        "sweep_rates": (kind is Profile.SWEEP, "--profile sweep"),
        "sweep_streams": (kind.is_survey, "--profile sweep or capacity"),
        "capacity_rates": (may_search, "--profile capacity, or a sweep with --slo"),
        "capacity_precision": (may_search, "--profile capacity, or a sweep with --slo"),
    }
    for name, (is_heeded, other) in goes_with.items():
        if getattr(options, name) is not None and not is_heeded:
            raise WorkloadError(f"--{name.replace('_', '-')} goes with {other}")
