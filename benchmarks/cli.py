"""`forgegate bench`: measure an OpenAI-compatible endpoint, or be a programmable one."""

import sys
from collections.abc import Mapping, Sequence

from benchmarks.arguments import Parser
from benchmarks.client import TargetError
from benchmarks.commands import compare, micro, mock, run, static, versus
from benchmarks.commands.exits import EXIT_ENVIRONMENT, EXIT_USAGE, refuse
from benchmarks.forms import FormError
from benchmarks.probe import UnusableError
from benchmarks.processes import ProcessError
from benchmarks.statistics.slo import SloError
from benchmarks.workload import WorkloadError

Others = Mapping[str, str]
"""Commands beside ours that whoever calls us takes itself, by name, with what the help says of each."""


def main(argv: Sequence[str] | None = None, others: Others | None = None) -> int:
    """The exit code; `argv` is what stands behind `forgegate bench`, and begins with none of the `others`."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser(others).parse_args(words)
    except SystemExit as exc:  # argparse has said all there is to say
        return int(exc.code or 0)
    try:
        return int(options.function(options, words))
    except (WorkloadError, TargetError, FormError, SloError) as exc:
        return refuse(str(exc), EXIT_USAGE)
    except UnusableError as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT if exc.is_environment else EXIT_USAGE)
    except ProcessError as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT)
    except KeyboardInterrupt:
        return refuse("stopped", 130)


def _parser(others: Others | None = None) -> Parser:
    parser = Parser(prog="forgegate bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", parser_class=Parser)
    for command in (run, compare, versus, static, micro, mock):
        command.add(commands)
    for name, text in (others or {}).items():
        commands.add_parser(name, help=text).set_defaults(function=_not_first)
    return parser


def _not_first(_: object, words: Sequence[str]) -> int:
    return refuse(f"write the command first, without {words[0]!r} before it", EXIT_USAGE)


if __name__ == "__main__":
    raise SystemExit(main())
