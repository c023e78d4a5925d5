"""`forgegate evaluate ab`: two models' answers side by side, in random order, judged by a person who does not know which is whose."""

from __future__ import annotations

import argparse
import getpass
import json
import re
import secrets
import socket
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from backends.admin_client import AdminClient
from backends.argtypes import port, positive
from backends.errors import BackendError
from finetune.dataset.errors import DataError, DataUnusable
from finetune.errors import RecipeUnusable, TrainError
from finetune.pages.asking import Background, GatewayVotes, Pair
from finetune.pages.journal import Entry, Journal, content_digest
from finetune.pages.judging import Judging
from finetune.pages.prompts import read_prompts
from finetune.pages.server import PageServer
from finetune.pages.session import FORMAT, Session, result_json, standing
from finetune.parity.served import Endpoint
from finetune.run.interrupts import terminable
from finetune.running import KEY, TOKEN, URL, endpoint, find

INTERRUPTED = 130
MAX_TOKENS = 512
FOLDER = Path("ab")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_ABOUT = ("models", "resolved", "prompts", "max_tokens")
EXAMPLE = f"""A page on this machine shows one prompt and two greedy answers at a time; keys 1, 2 and 0 (neither) judge, u takes
the last vote back. Which answer stands where is drawn by a seed and is nowhere in the page. Votes are kept in {FOLDER}/NAME.jsonl,
and in the gateway's store where its admin API is known ({TOKEN}, or the gateway that runs here). The same command
goes on where it was ended.

The first model is what is live, the second the candidate, whose win rate is reported.

examples:
  forgegate evaluate ab --models demo,support@3f2a91c04b7d --prompts held-out.jsonl
  forgegate evaluate ab --url http://gpu-1:8080 --models support,support@3f2a91c04b7d --prompts questions.txt --session second-look
  forgegate evaluate ab --result ab/anna.jsonl ab/ben.jsonl          # several people's votes on the same prompts, as one

exit codes: 0 done (also when ended early: what was judged is kept), 2 bad usage or bad input, 3 the endpoint cannot be asked
"""


def main(argv: Sequence[str] | None = None) -> int:
    made = parser()
    args = made.parse_args(argv)
    if not args.result and not (args.models and args.prompts):
        made.error("name --models LIVE,CANDIDATE and --prompts FILE, or --result FILE for votes that are there")
    try:
        with terminable():
            result = of_files(args.result) if args.result else judge(args)
    except (TrainError, DataError, BackendError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"error: {exc.filename or 'a temporary file'}: {exc.strerror or exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as exc:
        return getattr(exc, "exit_code", INTERRUPTED)
    print(json.dumps(result) if args.json else "\n".join(lines(result)), flush=True)
    return 0


def judge(args: argparse.Namespace) -> Entry:
    """Until the page or Ctrl-C ends it. Raises TrainError, DataError, OSError."""
    url, key = endpoint(args.url)
    prompts = read_prompts(args.prompts)
    with ExitStack() as opened:
        endpoints = [opened.enter_context(Endpoint(url, model, key)) for model in args.models]
        pair = Pair(endpoints, args.max_tokens)
        head = head_of(args, pair)
        args.folder.mkdir(parents=True, exist_ok=True)
        journal = opened.enter_context(Journal(args.folder / f"{head['session']}.jsonl", head, _ABOUT))
        session = Session(journal, prompts, args.who, _now)
        votes = _gateway_votes(url, session.name, pair, opened)
        judging = Judging(session, pair, votes, lambda words: print(words, file=sys.stderr, flush=True))
        serve(judging, args)
        judging.sending.rest()
        result = {**judging.result(), "session": session.name, "file": str(journal.path), "of": len(prompts)}
        return {
            **result,
            "failed": len(session.failed),
            "unsent": len(session.unsent()),
            "why_unsent": judging.sending.problem,
        }


def serve(judging: Judging, args: argparse.Namespace) -> None:
    server = PageServer(judging, args.port)
    with (
        Background(judging.asking, judging.broken) as asking,
        Background(judging.sending, judging.broken) as sending,
    ):
        judging.workers = (asking, sending)
        print(f"judge at {server.url}\nCtrl-C ends it; what was judged is kept", file=sys.stderr, flush=True)
        if args.open:
            webbrowser.open(server.url)
        try:
            server.run()
        except KeyboardInterrupt as exc:
            if getattr(exc, "exit_code", None) is not None:
                raise
            print(file=sys.stderr)


def head_of(args: argparse.Namespace, pair: Pair) -> Entry:
    name = args.session or re.sub(r"[^A-Za-z0-9_.-]", "-", "-vs-".join(pair.models))[:100]
    return {
        "format": FORMAT, "format_version": 1, "session": name, "models": list(pair.models), "resolved": list(pair.resolved),
        "prompts": content_digest(args.prompts), "max_tokens": args.max_tokens,
        "seed": secrets.randbits(32) if args.seed is None else args.seed, "who": args.who, "at": _now(),
    }  # fmt: skip


def _gateway_votes(url: str, session: str, pair: Pair, opened: ExitStack) -> GatewayVotes | None:
    """None where no admin API is known for this endpoint."""
    try:
        gateway = find()
    except RecipeUnusable:
        return None
    if gateway.url.rstrip("/").removesuffix("/v1") != url:
        return None
    client = opened.enter_context(AdminClient(gateway.admin_url, gateway.token))
    return GatewayVotes(client, session, pair.resolved)


def of_files(paths: Sequence[Path]) -> Entry:
    """Sessions about the same two versions, as one. Raises DataUnusable, OSError."""
    votes: list[Entry] = []
    resolved: list[str] = []
    for path in paths:
        head, *entries = _read(path)
        if resolved and resolved != head["resolved"]:
            raise DataUnusable(f"{path} is about {' and '.join(head['resolved'])}, not {' and '.join(resolved)}")
        resolved = head["resolved"]
        votes += standing(entries)
    return result_json(resolved, votes)


def _read(path: Path) -> list[Entry]:
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        if entries and entries[0]["format"] == FORMAT:
            return entries
    except (ValueError, KeyError, TypeError):
        pass
    raise DataUnusable(f"{path} is no session of `forgegate evaluate ab`")


def lines(result: Mapping[str, object]) -> list[str]:
    """For a terminal."""
    told = [
        f"{result['candidate']} against {result['live']}: {result['wins']} won, {result['losses']} lost, "
        f"{result['ties']} tied ({result['identical']} of them the same answers)"
    ]
    if result["rate"] is None:
        told.append("no vote decides: there is no win rate")
    else:
        rate, lower, upper = (100 * float(str(result[name])) for name in ("rate", "lower", "upper"))
        told.append(
            f"win rate {rate:.1f} % of the votes that decide, 95 % interval {lower:.1f} to {upper:.1f} %"
            + (
                ""
                if result["p_value"] is None
                else f"; exact p = {float(str(result['p_value'])):.2g} that both are liked the same"
            )
        )
    if "file" in result:
        told.append(f"session: {result['file']}")
    if result.get("failed"):
        told.append(f"{result['failed']} prompts were refused by a model and are not counted")
    if result.get("unsent"):
        told.append(f"{result['unsent']} votes are in the file only: {result['why_unsent']}")
    return told


def _models(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}: write two models, LIVE,CANDIDATE")
    return names


def _session_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: letters, digits, '.', '_' and '-' only")
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # an id without a name, as in containers
        return f"unknown@{socket.gethostname()}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="forgegate evaluate ab", description="Judge two models' answers blind, on a page of this machine.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument(
        "--url", default="", help=f"the endpoint (default: {URL}, else the gateway that runs here; key: {KEY})"
    )
    made.add_argument("--models", type=_models, metavar="LIVE,CANDIDATE", help="which two; versions are NAME@DIGEST")
    made.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt a line (.txt), or rows of training data")
    made.add_argument("--session", type=_session_name, metavar="NAME", help="(default: by the models' names)")
    made.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR", help="of sessions (default: %(default)s)")
    made.add_argument(
        "--max-tokens", type=positive, default=MAX_TOKENS, metavar="N", help="of an answer (default: %(default)s)"
    )
    made.add_argument("--seed", type=int, metavar="N", help="of the order (default: drawn anew for a new session)")
    made.add_argument("--who", default=_user(), help="recorded with each vote (default: %(default)s)")
    made.add_argument(
        "--port", type=port, default=0, help="of the page, for `ssh -L PORT:127.0.0.1:PORT` (default: a free one)"
    )
    made.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    made.add_argument(
        "--result", type=Path, nargs="+", metavar="FILE", help="only say what was voted in these sessions"
    )
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


if __name__ == "__main__":
    sys.exit(main())
