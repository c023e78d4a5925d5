"""How a command ends."""

import signal
import sys
from collections.abc import Callable, Mapping

EXIT_DONE, EXIT_NEGATIVE, EXIT_USAGE, EXIT_ENVIRONMENT = range(4)
EXIT_STOPPED = 130


def refuse(message: str, code: int) -> int:
    """One line on stderr; the code."""
    sys.stderr.write(f"error: {message}\n")
    return code


def ended(run: Callable[[], int], faults: Mapping[type[Exception], int]) -> int:
    """The exit code of a program: what `run` returns, argparse's own, or one line with the code of the first of `faults` that was raised.
    SIGTERM stops it as Ctrl-C does, so that the processes that it started are stopped, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except SystemExit as exc:
        return int(exc.code or 0)
    except KeyboardInterrupt:
        return refuse("stopped", EXIT_STOPPED)
    except tuple(faults) as exc:
        return refuse(str(exc), next(code for kind, code in faults.items() if isinstance(exc, kind)))
