"""What the search is worth: against the defaults, and against random search at equal budget.

Both searches get the same time, defaults included, in folders of their own. What each would try to recommend is then launched again in
turns with the defaults, with prompts that neither search has sent; a round is one observation of each ratio. `python -m
benchmarks.optimize.campaign --out benchmarks/results/optimize-llamacpp.json`
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import arguments, eventloop, report
from benchmarks.arguments import Parser
from benchmarks.child import ChildError
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, refuse
from benchmarks.optimize import journal, search
from benchmarks.optimize.launches import GatewayLaunches
from benchmarks.optimize.options import Wanted, budget, parser, wanted
from benchmarks.optimize.runner import Order, Runner
from benchmarks.optimize.search import FULL, Strategy
from benchmarks.optimize.session import BudgetError, DefaultsError, Explored, Session
from benchmarks.optimize.settings import DEFAULTS, Setting
from benchmarks.optimize.trial import Trial
from benchmarks.statistics.difference import MIN_PAIRS, Difference, paired

STRATEGIES = (Strategy.HALVING, Strategy.RANDOM)
SLO = "ttft_p95<1s,tpot_p95<8ms"
"""Loose enough for the demo model on two cores with some streams, and tight enough to be broken by more."""
_ENDLESS = float("inf")
_FRESH = 500
"""Added to a search's seed: prompts of the rounds."""


@dataclass(frozen=True, slots=True)
class Searched:
    """One search, and what it would have verified."""

    explored: Explored
    spent_s: float

    @property
    def best(self) -> Trial | None:
        """Better than the defaults by the search's own figures; None where nothing was."""
        found = search.winner(self.explored.trials)
        return found if found and found.score > self.explored.first.score else None

    @property
    def setting(self) -> Setting:
        """The defaults where nothing was better."""
        return self.best.setting if self.best else DEFAULTS


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a launch came to nothing, so that a ratio is missing."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    try:
        with ExitStack() as stack:
            work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forgegate-optimize-")))
            result = eventloop.run(_measured(options, work.absolute(), words))
    except BudgetError as exc:
        return refuse(str(exc), EXIT_USAGE)
    except (DefaultsError, ChildError, journal.JournalError) as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT)
    except KeyboardInterrupt:
        return refuse("stopped; with --work the same command goes on", 130)
    text = "\n".join(_lines(result)) + "\n"
    if options.out is not None:
        report.write(options.out, report.dump(result))
        report.write(options.out.with_suffix(".md"), text.encode())
    print(text, end="")
    return EXIT_DONE if result["ratios"] else EXIT_NEGATIVE


def _parser() -> Parser:
    made = Parser(prog="python -m benchmarks.optimize.campaign", description=__doc__)
    add = made.add_argument
    add("--budget", type=budget, default="150s", metavar="TIME", help="of each search (default 150s)")
    add(
        "--rounds",
        type=arguments.whole(MIN_PAIRS),
        default=MIN_PAIRS,
        metavar="N",
        help=f"afterwards (default {MIN_PAIRS})",
    )
    add("--slo", default=SLO, help=f"(default {SLO})")
    add("--seed", type=arguments.whole(0), default=1, help="(default 1)")
    add(
        "--requests",
        type=arguments.whole(1),
        default=8,
        metavar="N",
        help="of the shortest measurement, at least (default 8)",
    )
    add("--output-tokens", type=arguments.whole(1), default=64, metavar="N", help="(default 64)")
    add("--work", type=Path, metavar="DIR", help="to go on in after Ctrl-C (default: a folder that is removed)")
    add("--out", type=Path, metavar="FILE.json", help="result; the table goes to FILE.md")
    return made


async def _measured(options: argparse.Namespace, work: Path, words: Sequence[str]) -> dict[str, Any]:
    searched: dict[str, Searched] = {}
    for strategy in STRATEGIES:
        wish = _wish(options, strategy, work / strategy.value)
        with journal.opened(wish.work, wish.identity()) as kept:
            runner = Runner(wish.task, await _launches(wish), kept, _say)
            searched[strategy.value] = Searched(await Session(wish.task, runner, kept).explore(0), runner.spent_s)
    rounds = await _rounds(options, work, searched)
    return report.document(
        "optimize-campaign", ["python", "-m", "benchmarks.optimize.campaign", *words], model="demo", engine="llamacpp",
        slo=options.slo, budget_s=options.budget, seed=options.seed, over=[str(each) for each in wish.task.space.dimensions],
        searches={name: _search_dict(each) for name, each in searched.items()},
        rounds=[{name: _launch_dict(trial) for name, trial in one.items()} for one in rounds],
        ratios={name: {**asdict(found.ratio), "verdict": found.verdict.value, "sentence": found.sentence()}
                for name, found in ratios_of(rounds).items()},
    )  # fmt: skip


def _wish(options: argparse.Namespace, strategy: Strategy, work: Path) -> Wanted:
    return wanted(parser().parse_args([
        "--model", "demo", "--slo", options.slo, "--budget", f"{options.budget:.0f}s", "--search", strategy.value,
        "--seed", str(options.seed), "--requests", str(options.requests), "--output-tokens", str(options.output_tokens),
        "--work", str(work),
    ]))  # fmt: skip


async def _launches(wish: Wanted) -> GatewayLaunches:
    launches = GatewayLaunches(wish.served, wish.work / "gateway")
    await launches.end_leftovers()
    return launches


async def _rounds(options: argparse.Namespace, work: Path, searched: Mapping[str, Searched]) -> list[dict[str, Trial]]:
    """Each launches the defaults and what the searches found, who begins changing; equal settings are launched once."""
    wish = _wish(options, STRATEGIES[0], work / "rounds")
    settings = {"defaults": DEFAULTS, **{name: each.setting for name, each in searched.items()}}
    starts = {trial.setting: trial.best.load for each in searched.values()
              for trial in (each.explored.first, each.best) if trial and trial.best}  # fmt: skip
    rounds = []
    with journal.opened(wish.work, wish.identity()) as kept:
        runner = Runner(wish.task, await _launches(wish), kept, _say)
        for number in range(options.rounds):
            distinct = list(dict.fromkeys(settings.values()))
            turn = number % len(distinct)
            found = {}
            for setting in distinct[turn:] + distinct[:turn]:
                start = starts.get(setting, wish.task.axis.start)
                order = Order(
                    f"round {number + 1}", setting, FULL, 1000 * options.seed + _FRESH + number, start, _ENDLESS
                )
                found[setting] = await runner.run(order)
            rounds.append({name: found[setting] for name, setting in settings.items()})
    return rounds


def ratios_of(rounds: Sequence[Mapping[str, Trial]]) -> dict[str, Difference]:
    """Goodput, paired by rounds; empty where a launch carried no load."""
    if not all(trial.score for one in rounds for trial in one.values()):
        return {}
    halving, rand = (strategy.value for strategy in STRATEGIES)
    return {
        f"{b} over {a}": paired([(one[a].score, one[b].score) for one in rounds], is_higher_better=True)
        for a, b in (("defaults", halving), ("defaults", rand), (rand, halving))
    }


def _search_dict(found: Searched) -> dict[str, Any]:
    trials = found.explored.trials
    return {
        "setting": found.setting.options, "label": found.setting.label, "score": found.best.score if found.best else None,
        "defaults_score": found.explored.first.score, "num_settings": found.explored.num_settings, "num_launches": len(trials),
        "num_tried": len({trial.setting for trial in trials}), "num_out": sum(not trial.is_measured for trial in trials),
        "spent_s": round(found.spent_s, 1), "trials": [{**trial.as_dict(), "score": trial.score} for trial in trials],
    }  # fmt: skip


def _launch_dict(trial: Trial) -> dict[str, Any]:
    return {
        "setting": trial.setting.options,
        "outcome": trial.words,
        "score": trial.score,
        "load": trial.best.load if trial.best else None,
    }


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    budget_s, num_rounds = result["budget_s"], len(result["rounds"])
    yield f"llama.cpp, demo, {result['slo']}; {budget_s:.0f} s for each search, then {num_rounds} rounds of launches in turns."
    yield from (
        "",
        "| search | tried | launches | out | found | req/s within the SLO, by the search | the defaults' |",
        "|---|--:|--:|--:|---|--:|--:|",
    )
    for name, found in result["searches"].items():
        score = "-" if found["score"] is None else f"{found['score']:.1f}"
        yield (
            f"| {name} | {found['num_tried']} of {found['num_settings']} | {found['num_launches']} | {found['num_out']} | "
            f"{found['label']} | {score} | {found['defaults_score']:.1f} |"
        )
    names = list(result["rounds"][0])
    yield from ("", f"| round, req/s within the SLO (load) | {' | '.join(names)} |", "|--:|" + "--:|" * len(names))
    for number, one in enumerate(result["rounds"], start=1):
        cells = (f"{one[name]['score']:.1f} ({one[name]['load'] or 0:g})" for name in names)
        yield f"| {number} | {' | '.join(cells)} |"
    yield ""
    yield from (f"- {name}: {found['sentence']}" for name, found in result["ratios"].items())
    if not result["ratios"]:
        yield "- no ratios: a launch carried no load within the SLO"
    made = result["environment"]
    yield from (
        "",
        f"{made['date']}, {made['cpu']}, {made['cores']} cores; forgegate {made['versions'].get('forgegate', '')}; seed {result['seed']}.",
    )


def _say(line: str) -> None:
    """To whoever waits."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
