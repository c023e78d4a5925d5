"""`forgegate decide`: whether fine-tuning is what helps, or something cheaper."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from backends.argtypes import positive
from backends.atomicfile import atomic_path
from gateway.decide.ask import Quit, Read, ask, ask_text
from gateway.decide.chart import Outcome, Question, Way, follow
from gateway.decide.numbers import GPU, RECIPE, ROWS, Asked, PlanFailed, numbers, recipe_path
from gateway.decide.page import Decision, as_json, markdown
from gateway.decide.words import LANGUAGES, WORDS, Words, language_of
from gateway.exits import DONE, CommandError, UsageError
from gateway.training import TrainerMissing

QUIT = 130
T = TypeVar("T")
EXAMPLE = f"""Five questions, in the order of what each answer costs. What no flag answers is asked in the terminal; a script gives flags as
far as its way goes. Fine-tuning comes with the numbers of `forgegate train --plan`, without more for {ROWS:,} rows, the recipe
{RECIPE} and one {GPU}.

examples:
  forgegate decide
  forgegate decide --lang ko --out decision.md
  forgegate decide --no-prompting-enough --no-needs-documents --needs-format --rows 2000 --gpu 24GB --gpu-hour-price 0.5
  forgegate decide --no-prompting-enough --needs-documents --json
"""


def main(argv: Sequence[str]) -> int:
    root = parser()
    args = root.parse_args(argv)
    _require_sense(root, args)
    words = WORDS[args.lang or language_of(os.environ)]
    try:
        decision = _decide(args, words)
    except Quit:
        return QUIT
    _say(decision, words, args)
    if decision.problem:
        raise PlanFailed(decision.problem, decision.code)
    return DONE


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate decide", description="Prompting, RAG, fine-tuning or optimisation: which one to try.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    for question in Question:
        parser.add_argument(
            f"--{question.value}", action=argparse.BooleanOptionalAction, help=WORDS["en"].questions[question]
        )
    add = parser.add_argument
    add("--lang", choices=LANGUAGES, help="of questions and result (default: by LC_ALL, LC_MESSAGES or LANG)")
    add("--recipe", metavar="FILE|NAME", help=f"plan for this recipe, a file or a shipped one (default: {RECIPE})")
    add(
        "--rows",
        type=positive,
        metavar="N",
        help=f"plan for so many rows (default: {ROWS:,}, or the given recipe's own data)",
    )
    add("--row-tokens", type=positive, metavar="N", help="of each row")
    add(
        "--gpu",
        metavar="NAME|SIZE",
        help=f"plan for this GPU, as 24GB (default: {GPU}, or with a given recipe what is here)",
    )
    add("--gpu-hour-price", type=_price, metavar="PRICE", help="what an hour of it costs")
    add("--no-plan", action="store_true", help="fine-tuning without numbers")
    add("--out", type=Path, metavar="FILE.md", help="write the result as Markdown")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _require_sense(root: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    options = ("recipe", "rows", "row_tokens", "gpu", "gpu_hour_price")
    named = next((name for name in options if getattr(args, name) is not None), "")
    if args.no_plan and named:
        root.error(f"--no-plan and --{named.replace('_', '-')} exclude each other")


def _decide(args: argparse.Namespace, words: Words) -> Decision:
    """Raises Quit, UsageError."""
    given = {
        question: answer
        for question in Question
        if (answer := getattr(args, question.value.replace("-", "_"))) is not None
    }
    if args.recipe is not None:
        recipe_path(args.recipe)  # rather now than after five questions
    way = follow(given)
    is_asked = way.outcome is None
    if is_asked:
        way = ask(given, words, _reader(way), _tell)
    passed = {question for question, _ in way.steps}
    decision = Decision(way, tuple(question for question in given if question not in passed))
    if way.outcome is not Outcome.FINE_TUNING or args.no_plan:
        return decision
    asked = _asked(args)
    return _with_numbers(decision, _asked_in_words(args, asked, words) if is_asked else asked)


def _asked(args: argparse.Namespace) -> Asked:
    """A recipe of the user's own has data, and is for a machine, of its own."""
    known = Asked() if args.recipe is None else Asked(args.recipe, rows=None, gpu=None)
    found = replace(known, row_tokens=args.row_tokens, price=args.gpu_hour_price)
    found = replace(found, rows=args.rows) if args.rows is not None else found
    return replace(found, gpu=args.gpu) if args.gpu is not None else found


def _asked_in_words(args: argparse.Namespace, asked: Asked, words: Words) -> Asked:
    """Only where no flag says anything of the plan. Raises Quit, UsageError."""
    if any(each is not None for each in (args.recipe, args.rows, args.row_tokens, args.gpu, args.gpu_hour_price)):
        return asked
    labels = words.labels
    _tell(f"\n{words.outcomes[Outcome.FINE_TUNING].name}. {labels['numbers']}:")
    recipe = _ask_checked(labels["ask_recipe"], RECIPE, _checked_recipe)
    rows = _ask_checked(labels["ask_rows"], str(ROWS), positive)
    gpu = ask_text(labels["ask_gpu"], GPU, _read)
    price = _ask_checked(labels["ask_price"], "", lambda text: _price(text) if text else None)
    return Asked(recipe, rows, None, gpu, price)


def _ask_checked(question: str, default: str, check: Callable[[str], T]) -> T:
    while True:
        text = ask_text(question, default, _read)
        try:
            return check(text)
        except (argparse.ArgumentTypeError, UsageError) as exc:
            _tell(str(exc))


def _checked_recipe(name: str) -> str:
    recipe_path(name)
    return name


def _with_numbers(decision: Decision, asked: Asked) -> Decision:
    """The decision stands without them."""
    try:
        return replace(decision, asked=asked, plan=numbers(asked))
    except (PlanFailed, TrainerMissing, UsageError) as exc:
        return replace(decision, asked=asked, problem=str(exc), code=exc.exit_code)


def _reader(way: Way) -> Read:
    """Raises UsageError where nobody is there to be asked."""
    if sys.stdin.isatty():
        return _read
    raise UsageError(
        f"--{way.end.value} or --no-{way.end.value}? Without a terminal each answer on the way is given as a flag"
    )


def _read(prompt: str) -> str:
    """`input` would write its prompt to stdout where that is a pipe. Raises EOFError."""
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def _tell(text: str) -> None:
    """Beside the result, which may be piped."""
    print(text, file=sys.stderr)


def _say(decision: Decision, words: Words, args: argparse.Namespace) -> None:
    """Raises CommandError where the file cannot be written."""
    if args.out is not None:
        _write(args.out, markdown(decision, words))
        _tell(f"{words.labels['wrote']} {args.out}")
    if args.json:
        print(json.dumps(as_json(decision, words), ensure_ascii=False, indent=1))
    elif args.out is None:
        print(markdown(decision, words, has_chart=False), end="")
    else:
        named = words.outcomes[decision.outcome]
        print(f"{words.labels['answer']}: {named.name}. {named.advice}")


def _write(path: Path, text: str) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise CommandError(f"--out {path}: {exc.strerror or exc}") from exc


def _price(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no price: write 3 or 0.45")
    return found
