"""`forgegate data doctor | mix | split | show | review | collect | vary`: the arguments. What they do needs an environment that
reads tables; their help does not."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from backends.argtypes import port, positive
from backends.errors import BackendError
from finetune.dataset.errors import DataError, DataLacksPackage
from finetune.errors import TrainError
from finetune.output import unread
from finetune.run.interrupts import terminable

_COMMANDS = "finetune.dataset.commands"
_MODULES = {
    "review": "finetune.pages.reviewing",
    "collect": "finetune.dataset.collect",
    "vary": "finetune.variants.command",
}
"""Where actions live that are elsewhere."""
DEFAULT_RATIO = 0.2
INTERRUPTED = 130
EXAMPLE = """examples:
  forgegate data doctor tickets.xlsx --eval held-out.jsonl --max-length 2048
  forgegate data doctor tickets.csv --columns instruction=질문,output=답변 --fix clean.jsonl --mask
  forgegate data split clean.jsonl --train train.jsonl --eval eval.jsonl --eval-share 0.1
  forgegate data mix train.jsonl --general chat.jsonl --ratio 0.15 --out mixed.jsonl
  forgegate data show mixed.jsonl --model demo --rows 3
  forgegate data review clean.jsonl --out kept.jsonl
  forgegate data collect --from-access-log conversations.jsonl --out rows.jsonl
  forgegate data vary seeds.jsonl --url http://gpu-1:8080 --model large --rows 500 --out variants.jsonl

read are JSON, JSONL, CSV, XLSX and Parquet, in UTF-8, UTF-16, cp949 or a mixture; Alpaca, ShareGPT, ChatML, prompt/completion
exit codes: 0 done, 1 the doctor found errors, 2 bad usage or bad input, 3 the environment cannot do it
"""


def main(argv: Sequence[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if args.action == "doctor" and args.mask and args.fix is None:
        root.error("--mask goes with --fix OUT: the files that are read are never changed")
    try:
        with terminable():
            code = run_of(args.action)(args)
        sys.stdout.flush()
        return code
    except (DataError, TrainError, BackendError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return unread()
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)


def run_of(action: str) -> Callable[[argparse.Namespace], int]:
    """Raises DataLacksPackage."""
    try:
        module = import_module(_MODULES.get(action, _COMMANDS))
        run: Callable[[argparse.Namespace], int] = getattr(module, f"run_{action}")
    except ImportError as exc:
        raise DataLacksPackage(f"forgegate data needs {exc.name}: run `forgegate install trainer`") from exc
    return run


def _between(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not low <= found <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low:g} to {high:g}")
        return found

    return number


def _columns(text: str) -> Mapping[str, str]:
    """`instruction=질문,output=답변`"""
    pairs = [part.partition("=") for part in text.split(",")]
    known = ("instruction", "input", "output", "prompt", "completion", "messages", "conversations", "system", "text")
    for name, sign, field in pairs:
        if not sign or not field:
            raise argparse.ArgumentTypeError(f"{text!r}: write instruction=FIELD,output=FIELD")
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return {name: field for name, _, field in pairs}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="forgegate data", description="Collect, vary, check, clean, mix, split, show and review training data.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = root.add_subparsers(
        dest="action", required=True, metavar="doctor | mix | split | show | review | collect | vary"
    )
    doctor = _action(actions, "doctor", "find what is wrong with a set, and mend it")
    doctor.add_argument(
        "--eval",
        type=Path,
        action="append",
        metavar="FILE",
        help="an evaluation set: none of its questions may be in the set",
    )
    _token_arguments(doctor)
    doctor.add_argument(
        "--fix",
        type=Path,
        metavar="OUT",
        help="write the cleaned rows as JSONL, and a report beside them (OUT.report.html, OUT.report.json)",
    )
    doctor.add_argument(
        "--mask",
        action="store_true",
        help="with --fix: put a tag such as [PHONE] in place of personal data; without it such rows are left out",
    )
    doctor.add_argument("--report", type=Path, metavar="NAME", help="write NAME.html and NAME.json")
    mixer = _action(actions, "mix", "domain data with general data at a ratio, against forgetting")
    mixer.add_argument(
        "--general",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="general data to draw from; may be repeated",
    )
    mixer.add_argument(
        "--ratio",
        type=float,
        default=DEFAULT_RATIO,
        help=f"share of general rows in the result (default {DEFAULT_RATIO}; 0.1 to 0.2 is usual, up to 0.3 where it forgets)",
    )
    mixer.add_argument("--out", type=Path, required=True, help="JSONL to write")
    splitter = _action(
        actions, "split", "a training and an evaluation set that share no question, near duplicates included"
    )
    splitter.add_argument("--train", type=Path, required=True, metavar="OUT", help="JSONL to write")
    splitter.add_argument("--eval", type=Path, required=True, metavar="OUT", help="JSONL to write")
    splitter.add_argument("--eval-share", type=float, default=0.1, help="share of rows for evaluation (default 0.1)")
    for each in (mixer, splitter):
        each.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")
    shower = _action(actions, "show", "rows as the model sees them, the loss mask in colour")
    _token_arguments(shower, is_required=True)
    shower.add_argument("--rows", type=positive, default=3, metavar="N", help="the first N rows (default 3)")
    shower.add_argument("--row", type=positive, metavar="NUMBER", help="only this row")
    _review_arguments(_action(actions, "review", "keep, edit or drop rows one by one, on a page of this machine"))
    _collect_arguments(actions)
    _vary_arguments(_action(actions, "vary", "new rows after the pattern of seeds, by a model of any endpoint"))
    return root


def _collect_arguments(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    words = "rows from the log of conversations that a gateway keeps (forgegate.yaml: conversations)"
    action = actions.add_parser(
        "collect", help=words, description=words, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action.add_argument(
        "--from-access-log",
        type=Path,
        nargs="+",
        required=True,
        metavar="LOG",
        help="what conversations.file names; those that it was renamed to (LOG.1, LOG.2, ...) are read too",
    )
    action.add_argument("--out", type=Path, required=True, help="JSONL to write")
    action.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="only conversations with this model, alias or version; may be repeated",
    )
    action.add_argument("--json", action="store_true", help="print JSON")


def _vary_arguments(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("--model", required=True, metavar="NAME", help="which model is asked")
    add(
        "--out",
        type=Path,
        required=True,
        help="JSONL to write; OUT.vary beside it holds every reply, so that a run can go on",
    )
    add(
        "--url",
        default="",
        help="an OpenAI-compatible endpoint (default: the gateway of this machine); its key in FORGEGATE_API_KEY",
    )
    add("--rows", type=positive, default=100, metavar="N", help="as many rows (default 100)")
    add("--requests", type=positive, metavar="N", help="no more requests (default: as many as rows)")
    add("--tokens", type=positive, metavar="N", help="none is begun once so many tokens, prompts included, were used")
    add(
        "--answers",
        choices=("together", "apart"),
        default="together",
        help="with the questions, or by asking each question by itself, with the system prompt of the seeds (default: together)",
    )
    add(
        "--schema",
        action="store_true",
        help="ask with a JSON schema, for a model that does not keep to the form by itself, where the endpoint knows schemas",
    )
    add("--shots", type=positive, default=3, metavar="N", help="seeds that a request shows (default 3)")
    add("--each", type=positive, default=4, metavar="N", help="variants that a request asks for (default 4)")
    add(
        "--max-similar",
        type=_between(0, 1),
        default=0.7,
        metavar="SHARE",
        help="ROUGE-L from which on a question is too like another (default 0.7)",
    )
    add("--temperature", type=_between(0, 2), default=1.0, metavar="T", help="of the requests for variants (default 1)")
    add("--max-tokens", type=positive, default=1024, metavar="N", help="of a reply (default 1024)")
    add("--at-a-time", type=positive, default=4, metavar="N", help="requests that run at once (default 4)")
    add("--seed", type=int, default=0, help="which seeds are shown when, and what the endpoint draws (default 0)")


def _review_arguments(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--out", type=Path, required=True, help="JSONL to write; OUT.review beside it holds what was decided so far"
    )
    action.add_argument(
        "--flagged", action="store_true", help="show only rows that the doctor says something of; the others are kept"
    )
    action.add_argument(
        "--port", type=port, default=0, help="of the page, for `ssh -L PORT:127.0.0.1:PORT` (default: a free one)"
    )
    action.add_argument("--open", action="store_true", help="open the page in this machine's browser")


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, words: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name, help=words, description=words, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action.add_argument("files", type=Path, nargs="+", metavar="FILE", help="JSON, JSONL, CSV, XLSX or Parquet")
    action.add_argument(
        "--columns",
        type=_columns,
        default={},
        metavar="NAME=FIELD,...",
        help="which fields of the file are instruction, input, output, ...",
    )
    action.add_argument("--json", action="store_true", help="print JSON")
    return action


def _token_arguments(action: argparse.ArgumentParser, is_required: bool = False) -> None:
    action.add_argument(
        "--model",
        required=is_required,
        metavar="FOLDER",
        help="count tokens and render rows as this model does (`demo` for the demo model); else tokens are estimated",
    )
    action.add_argument(
        "--max-length",
        type=positive,
        metavar="TOKENS",
        help="tokens of a row that training keeps (default 4096, or what the model can read)",
    )


if __name__ == "__main__":
    sys.exit(main())
