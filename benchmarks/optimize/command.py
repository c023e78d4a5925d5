"""`forgegate optimize`: find settings of an engine that answer more requests within an SLO than the defaults do.

Engines are started one at a time by `forgegate serve` on a configuration of ours, on free ports of 127.0.0.1, and ended again.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import eventloop, report
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, refuse
from benchmarks.optimize import journal
from benchmarks.optimize.document import block_of, markdown, result_of
from benchmarks.optimize.journal import JournalError
from benchmarks.optimize.launches import GatewayLaunches, config_of
from benchmarks.optimize.options import Wanted, parser, wanted
from benchmarks.optimize.page import render
from benchmarks.optimize.runner import Runner
from benchmarks.optimize.session import BudgetError, DefaultsError, Found, Session
from benchmarks.optimize.settings import SettingError
from benchmarks.statistics.slo import SloError
from benchmarks.workload import WorkloadError

INTERRUPTED = 130
BLOCK = "forgegate.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; `argv` is what stands behind `forgegate optimize`."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parser().parse_args(words)
    except SystemExit as exc:  # argparse has said all there is to say
        return int(exc.code or 0)
    try:
        return _run(wanted(options), words, options.json)
    except (SettingError, SloError, WorkloadError, JournalError, BudgetError) as exc:
        return refuse(str(exc), EXIT_USAGE)
    except DefaultsError as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT)
    except OSError as exc:
        return refuse(f"{exc.filename or 'the work folder'}: {exc.strerror or exc}", EXIT_ENVIRONMENT)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return refuse("stopped; what was measured is kept, the same command goes on", INTERRUPTED)


def _run(search: Wanted, words: Sequence[str], is_json: bool) -> int:
    work = search.work.absolute()
    with journal.opened(work, search.identity()) as kept:
        launches = GatewayLaunches(search.served, work / "gateway")
        code, reason = launches.check(search.task.space.fixed)
        if code:
            return refuse(reason, code if code in (EXIT_USAGE, EXIT_ENVIRONMENT) else EXIT_ENVIRONMENT)
        if kept.num_trials:
            _say(f"{work}: goes on after {kept.num_trials} launches and {kept.spent_s:.0f} s")
        found = eventloop.run(_measured(search, launches, kept))
    result = _write(search, found, words)
    sys.stdout.write(report.dump(result).decode() if is_json else markdown(result))
    _say(f"written to {work}: result.json, result.md, result.html{', ' + BLOCK if result['block'] else ''}")
    return EXIT_DONE if found.judgement.is_recommended else EXIT_NEGATIVE


async def _measured(search: Wanted, launches: GatewayLaunches, kept: journal.Journal) -> Found:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # as Ctrl-C: engines are ended
    if num := await launches.end_leftovers():
        _say(f"ended {num} processes that a search killed in this folder had left")
    return await Session(search.task, Runner(search.task, launches, kept, _say), kept).run()


def _write(search: Wanted, found: Found, words: Sequence[str]) -> dict[str, Any]:
    block = None
    if found.judgement.is_recommended and found.candidate is not None:
        config = config_of(search.served, search.name, search.task.space.options_of(found.candidate))
        block = block_of(config, found, search.task.axis, str(search.task.slo))
    result = result_of(["forgegate", "optimize", *words], search.task, found, search.described(), block, search.notes)
    report.write(search.work / "result.json", report.dump(result))
    report.write(search.work / "result.md", markdown(result).encode())
    report.write(search.work / "result.html", render(result).encode())
    _write_block(search.work / BLOCK, block)
    return result


def _write_block(path: Path, block: str | None) -> None:
    """An older one does not stay where nothing is recommended any more."""
    if block is None:
        path.unlink(missing_ok=True)
    else:
        report.write(path, block.encode())


def _say(line: str) -> None:
    """To whoever waits."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
