"""`forgegate evaluate`: python -m finetune.evaluate --url URL --models LIVE,CANDIDATE [--suite FILE | --run RUN] [--out DIR]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from backends.argtypes import positive
from backends.errors import BackendError
from finetune.dataset.errors import DataError
from finetune.errors import LacksPackage, TrainError
from finetune.evaluation.defaults import AT_A_TIME, JUDGE_ITEMS, JUDGE_KEY, NUM_ITEMS
from finetune.output import unread
from finetune.run.interrupts import terminable
from finetune.running import KEY, TOKEN, URL

INTERRUPTED = 130
EXAMPLE = f"""Every model is asked the suite's task, its general skills and everyday greetings; the first model is what is live, each other
one is held against it, item by item. Answers are kept in the folder: what was cut off goes on, more items ask for the rest only.

The key is taken from --token, else from {TOKEN} (needed for a candidate, NAME@DIGEST), else {KEY}; the gateway that
runs here needs none to be set. The judge's is taken from {JUDGE_KEY}.

examples:
  forgegate evaluate --models demo,support@3f2a91c04b7d --suite suite.yaml --out evaluation
  forgegate evaluate --models demo,support --run runs/support --items 200
  forgegate evaluate ab --models demo,support --prompts questions.txt      # by a person, blind; `forgegate evaluate ab --help`
  forgegate evaluate --url http://gpu-1:8080 --models base,tuned --suite suite.yaml --judge http://gpu-2:8080 --judge-model large

a suite is one YAML file, paths in it are relative to it:
  task: {{name: tickets, path: held-out.jsonl, score: json_schema, schema: ticket.schema.json}}
  general: demo                  # or a list of tasks like the one above, or {{lm_eval: FOLDER}} with task files of lm-eval
  max_drop: 3                    # points of 100; or {{mmlu: 3, hellaswag: 2, arc_challenge: 2}}
score: exact | contains | json_schema | json_fields | f1 | rouge_l | choice

exit codes: 0 done, 2 bad usage or bad input, 3 the environment cannot do it
"""


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["ab"]:
        from finetune.pages.ab import main as ab

        return ab(given[1:])
    made = parser()
    args = made.parse_args(given)
    if (args.suite is None) == (args.run is None):
        made.error("name what is asked: --suite FILE or --run RUN")
    if (args.judge is None) != (args.judge_model is None):
        made.error("--judge URL goes with --judge-model MODEL")
    if args.rubric and not args.judge:
        made.error("--rubric FILE goes with --judge URL")
    try:
        with terminable():
            return run_of()(args)
    except (TrainError, DataError, BackendError) as exc:
        for line in str(exc).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return unread()
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)


def run_of() -> Callable[[argparse.Namespace], int]:
    """What the command does: its help needs none of that. Raises LacksPackage."""
    try:
        from finetune.evaluation.command import run
    except ModuleNotFoundError as exc:
        raise LacksPackage(f"forgegate evaluate needs {exc.name}: run `forgegate install trainer`") from exc
    return run


def _models(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: write LIVE,CANDIDATE, each once")
    return names


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="forgegate evaluate", description="How models answer a suite, held against each other.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = made.add_argument
    add("--url", default="", help=f"the endpoint (default: {URL}, else the gateway that runs here)")
    add(
        "--models",
        metavar="LIVE,CANDIDATE",
        type=_models,
        required=True,
        help="what is live first; one alone is only scored",
    )
    add("--suite", metavar="FILE", type=Path, help="what is asked, as YAML")
    add(
        "--run",
        metavar="RUN",
        type=Path,
        help="in place of --suite: what a training run held out, and on the demo model its skills",
    )
    add(
        "--items",
        metavar="N",
        type=positive,
        default=NUM_ITEMS,
        help="of each task, where it has so many (default %(default)s)",
    )
    add("--out", metavar="DIR", type=Path, default=Path("evaluation"), help="where to write (default: %(default)s)")
    add("--at-a-time", metavar="N", type=positive, default=AT_A_TIME, help="requests at once (default %(default)s)")
    add("--token", help=f"the key (default: {TOKEN}, else {KEY}, else this machine's own)")
    add("--judge", metavar="URL", help="an endpoint whose model compares answers to the task, in both orders")
    add("--judge-model", metavar="MODEL", help="that model")
    add(
        "--judge-items",
        metavar="N",
        type=positive,
        default=JUDGE_ITEMS,
        help="how many items it judges (default %(default)s)",
    )
    add("--rubric", metavar="FILE", type=Path, help="what it judges by, in place of a general one")
    add("--json", action="store_true", help="print progress and a summary as JSON lines")
    return made


if __name__ == "__main__":
    sys.exit(main())
