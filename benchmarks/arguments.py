"""Command line parsing that answers a typo with what was probably meant."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.lengths import LengthDraw, parse_length


class Parser(argparse.ArgumentParser):
    """No abbreviations; errors are one line on stderr and exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but unknown options are answered with the nearest known one of the command they stand behind."""
        words = list(sys.argv[1:] if args is None else args)
        found, unknown = self.parse_known_args(words, namespace)
        if unknown:
            active = self._active(words)
            active.error(f"unknown argument {unknown[0]!r}{_did_you_mean(unknown[0], active.option_names())}")
        return found

    def option_names(self) -> list[str]:
        """Every `--name` here."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """One line, and where the help is."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            names = re.findall(r"[\w-]+", choice[2])
            message = (
                f"unknown command or value {choice[1]!r}{_did_you_mean(choice[1], names)}; one of {', '.join(names)}"
            )
        sys.stderr.write(f"error: {message}\nhelp: {self.prog} --help\n")
        raise SystemExit(2)

    def _active(self, words: Sequence[str]) -> "Parser":
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word in words:
                    if word in action.choices:
                        parser = action.choices[word]
                        assert isinstance(parser, Parser)
                        return parser
        return self


def _did_you_mean(word: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.partition("=")[0], names, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def whole(at_least: int) -> Callable[[str], int]:
    """A whole number that is not smaller."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from exc
        if value < at_least:
            raise argparse.ArgumentTypeError(f"must be at least {at_least}, not {value}")
        return value

    return parse


def number(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """A number between both ends."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from exc
        if not low <= value <= high:
            limits = f"at least {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
            raise argparse.ArgumentTypeError(f"must be {limits}, not {text}")
        return value

    return parse


def levels(text: str) -> tuple[int, ...]:
    """`1,8,32`: numbers of streams, each once."""
    parse = whole(1)
    found = tuple(parse(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError("names no level: write for example 1,8,32")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a level twice: use --repeats for that")
    return found


def rates(text: str) -> tuple[float, ...]:
    """`2,4.5,8`: requests per second, each once."""
    parse = number(1e-6)
    found = tuple(parse(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError("names no rate: write for example 2,4,8")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a rate twice: use --repeats for that")
    return found


def cores(text: str) -> tuple[int, ...]:
    """`0,1`: numbers of cores."""
    parse = whole(0)
    return tuple(parse(part.strip()) for part in text.split(",") if part.strip())


def length(text: str) -> LengthDraw:
    """`128`, `64-256` or `lognormal:550,0.8`."""
    try:
        return parse_length(text)
    except WorkloadError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def names(text: str) -> tuple[str, ...]:
    """`a,b`."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError("names nothing")
    return found
