"""`forgegate adapters list | show | publish | alias | split | rollback | verdicts | watch | pin | unpin | unload | remove`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.adapter.pack import pack
from backends.admin_client import AdminClient
from gateway.adaptershow import (
    alias_row,
    gate_words,
    shares_words,
    show_alias,
    show_version,
    verdict_row,
    version_row,
    watch_words,
)
from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE, UsageError
from gateway.finite import finite
from gateway.publishview import make_view
from gateway.table import print_table
from gateway.who import add_who

EXAMPLE = """A version is one set of weights for one base, named by its content: support@3f2a91c04b7d. An alias (support) is what clients
ask for; it serves one version, or several by weight.

examples:
  forgegate adapters publish ./my-adapter --name support   check, prove, then serve it as `support`
  forgegate adapters list
  forgegate adapters show support                          what it serves, and who changed that when
  forgegate adapters rollback support
"""
EXAMPLES = {
    "list": """examples:
  forgegate adapters list
  forgegate adapters list --json
""",
    "show": """examples:
  forgegate adapters show support
  forgegate adapters show support@3f2a91c04b7d
""",
    "publish": """DIR is what PEFT's save_pretrained wrote: adapter_config.json and adapter_model.safetensors. The gateway checks it, stores
it under its digest, loads it, and proves on the engines that they serve it and nothing else; then the alias NAME serves it.
Stopped once it is sent (Ctrl-C), the gateway goes on by itself; to publish the same again is quick and changes nothing.

examples:
  forgegate adapters publish ./my-adapter --name support
  forgegate adapters publish ./my-adapter --name support --model demo --candidate-only
""",
    "alias": """A version that the alias has not served needs a verdict of `forgegate gate`, or is marked, as adapters.gate has it. The
newest GO that fits is found by itself: it was held against just what the alias serves now, on the same base.

examples:
  forgegate adapters alias support support@3f2a91c04b7d
  forgegate adapters alias support support@3f2a91c04b7d --verdict 1f2e3d4c5b6a
""",
    "split": """A user or session stays with one version. Weights are relative.

examples:
  forgegate adapters split support support@3f2a91c04b7d=90 support@8c0d11e2f3a4=10
""",
    "rollback": """A candidate beside what was live, its growing part, and the flip to it are one change: it goes back to what was live.

examples:
  forgegate adapters rollback support      to what it served before the last change
""",
    "verdicts": """examples:
  forgegate adapters verdicts
  forgegate adapters verdicts support@3f2a91c04b7d
""",
    "watch": """The newest version is judged every second, for 12 windows after the flip or split that brought it: by the alias's
requests that an engine failed, and by its median time to first byte beside that of what was live before. Where it does worse, the alias
goes back, and its history says why.

examples:
  forgegate adapters watch support
  forgegate adapters watch support --max-error-share 0.02 --max-ttft-ratio 1.5 --min-requests 100 --window 300
  forgegate adapters watch support --off
""",
    "pin": """A pinned version stays loaded, however long nobody asks for it.

examples:
  forgegate adapters pin support@3f2a91c04b7d
""",
    "unpin": """examples:
  forgegate adapters unpin support@3f2a91c04b7d
""",
    "unload": """It is freed on every engine; the next request for it loads it again. Loaded anew, an engine that failed its proof is
tried again.

examples:
  forgegate adapters unload support@3f2a91c04b7d
""",
    "remove": """Only what no alias serves or would roll back to can go.

examples:
  forgegate adapters remove support@3f2a91c04b7d
""",
}


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.action == "publish":
        pack(args.folder)  # before anything else: no gateway is needed to see that it is no adapter
    with admin_client(args) as client:
        done: int = args.run(client, args)
        return done


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate adapters", description="LoRA adapters of a running gateway: published, proven, served by name.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _action(actions, "list", "versions and aliases", _list)
    show = _action(actions, "show", "a version or an alias: proof on each engine, history with who and when", _show)
    show.add_argument("name", metavar="NAME", help="alias, or version")
    _add_publish(actions)
    alias = _action(actions, "alias", "let an alias serve this version (flip)", _alias, is_change=True)
    alias.add_argument("name", metavar="NAME", help="the alias; it is made if there is none")
    alias.add_argument("target", metavar="VERSION", help="for example support@3f2a91c04b7d")
    _add_verdict(alias)
    split = _action(actions, "split", "let an alias serve several versions by weight", _split, is_change=True)
    split.add_argument("name", metavar="NAME", help="the alias")
    split.add_argument("shares", metavar="VERSION=WEIGHT", nargs="+", type=_share, help="weights are whole numbers")
    _add_verdict(split)
    rollback = _action(actions, "rollback", "back to what an alias served before", _rollback)
    rollback.add_argument("name", metavar="NAME", help="the alias")
    add_who(rollback, "the change")
    verdicts = _action(actions, "verdicts", "what `forgegate gate` found of a version, or of all", _verdicts)
    verdicts.add_argument("name", metavar="VERSION", nargs="?", default="", help="for example support@3f2a91c04b7d")
    _add_watch(actions)
    for name, words in (
        ("pin", "keep a version loaded"), ("unpin", "let it go when room is needed"), ("unload", "free it on every engine"),
    ):  # fmt: skip
        _action(actions, name, words, _change).add_argument("name", metavar="VERSION")
    _action(actions, "remove", "forget a version and delete its files", _remove).add_argument("name", metavar="VERSION")
    return parser


def _add_verdict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verdict", metavar="DIGEST", default="", help="the verdict that allows it (default: the newest GO that fits)"
    )


def _add_watch(actions: Any) -> None:
    watch = _action(actions, "watch", "let an alias go back by itself where its newest version does worse", _watch)
    watch.add_argument("name", metavar="ALIAS")
    watch.add_argument("--off", action="store_true", help="only people move it from here on")
    for flag, kind, default, words in (
        ("--max-error-share", finite, 0.02, "of its requests those that may end in an engine's failure, 0 to 1"),
        ("--max-ttft-ratio", finite, 1.5, "its median time to first byte over that of what was live before"),
        ("--min-requests", int, 100, "with fewer nothing is decided"),
        ("--window", finite, 300.0, "seconds that are looked at"),
    ):
        watch.add_argument(flag, type=kind, default=default, metavar="N", help=f"{words} (default: %(default)g)")
    add_who(watch, "the change")


def _add_publish(actions: Any) -> None:
    publish = _action(actions, "publish", "send an adapter, prove it, serve it", _publish, is_change=True)
    publish.add_argument("folder", metavar="DIR", type=Path, help="the adapter's folder, in PEFT's format")
    publish.add_argument("--name", required=True, help="the alias that clients ask for")
    publish.add_argument(
        "--model", default="", help="the model it was trained on (default: the only one that takes adapters)"
    )
    publish.add_argument(
        "--candidate-only",
        action="store_true",
        help="leave the alias as it is; the version is for the admin token alone",
    )


def _action(actions: Any, name: str, words: str, run: Any, *, is_change: bool = False) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = actions.add_parser(
        name, help=words, description=f"{words[0].upper()}{words[1:]}.", epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.set_defaults(run=run)
    if is_change:
        made.add_argument(
            "--force",
            metavar="REASON",
            default="",
            help="move without a verdict, or against one, for this reason; recorded",
        )
        add_who(made, "the change")
    add_arguments(made)
    return made


def _share(text: str) -> tuple[str, int]:
    name, equals, weight = text.rpartition("=")
    if not equals or not name or not weight.isascii() or not weight.isdigit() or not 1 <= int(weight) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected VERSION=WEIGHT, for example support@3f2a91c04b7d=90, got {text!r}")
    return name, int(weight)


# What is there --------------------------------------------------------------------------------------------------------


def _list(client: AdminClient, args: argparse.Namespace) -> int:
    versions, aliases = client.adapters(), client.aliases()
    if args.json:
        print(json.dumps({"versions": versions, "aliases": aliases}, indent=2))
        return DONE
    if not versions:
        print("no adapter was published yet: forgegate adapters publish DIR --name NAME")
        return DONE
    if aliases:
        print_table(("alias", "model", "serves", "gate"), [alias_row(alias) for alias in aliases])
        print()
    heads = ("version", "model", "state", "proof", "loaded on", "rank", "size", "age")
    print_table(heads, [version_row(version) for version in versions])
    return DONE


def _show(client: AdminClient, args: argparse.Namespace) -> int:
    found = client.adapter(args.name)
    if args.json:
        print(json.dumps(found, indent=2))
        return DONE
    show_alias(found) if found["kind"] == "alias" else show_version(found)
    return DONE


def _verdicts(client: AdminClient, args: argparse.Namespace) -> int:
    found = client.verdicts(args.name)
    if args.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print(f"no verdict{f' of {args.name}' if args.name else ''} was given yet: forgegate gate --help")
    else:
        heads = ("verdict", "outcome", "candidate", "against", "rule", "suite", "when", "who", "reasons")
        print_table(heads, [verdict_row(verdict) for verdict in found])
    return DONE


# Changes --------------------------------------------------------------------------------------------------------------


def _publish(client: AdminClient, args: argparse.Namespace) -> int:
    try:
        with make_view(args.json) as view:
            done = client.publish(
                args.folder, args.name, model=args.model, who=args.who, is_candidate_only=args.candidate_only,
                force=args.force, on_event=view.told, on_sent=view.sent,
            )  # fmt: skip
    except KeyboardInterrupt:
        print("stopped; what was sent whole goes on without you: forgegate adapters list", file=sys.stderr)
        raise
    if args.json:
        print(json.dumps(done), flush=True)
        return DONE
    again = "" if done["is_new"] else " (already there)"
    print(f"{done['version']}: {done['state']}, {done['proof'] or 'not proven'}{again}")
    for line in (*done["warnings"], *done["notes"]):
        print(f"note: {line}", file=sys.stderr)
    if done["alias"]:
        print(f"{done['alias']} serves it")
    else:
        print(f"serve it: forgegate adapters alias {args.name} {done['version']}", file=sys.stderr)
    seconds = ", ".join(f"{stage} {spent:.2f}" for stage, spent in done["seconds"].items())
    print(f"seconds: {seconds}; in all {done['total_s']:.2f}", file=sys.stderr)
    return DONE


def _alias(client: AdminClient, args: argparse.Namespace) -> int:
    return _moved(args, client.point(args.name, {args.target: 1}, args.who, args.force, args.verdict))


def _split(client: AdminClient, args: argparse.Namespace) -> int:
    shares = dict(args.shares)
    if len(shares) != len(args.shares):
        raise UsageError("a version is named twice: give each one weight")
    return _moved(args, client.point(args.name, shares, args.who, args.force, args.verdict))


def _rollback(client: AdminClient, args: argparse.Namespace) -> int:
    return _moved(args, client.rollback(args.name, args.who))


def _moved(args: argparse.Namespace, change: Mapping[str, Any]) -> int:
    if args.json:
        print(json.dumps(change, indent=2))
    else:
        print(f"{args.name} serves {shares_words(change['shares'])}{gate_words(change['gate'])}")
    if change["warning"]:
        print(f"warning: {change['warning']}", file=sys.stderr)
    for column in change["replaced_workers"]:
        print(f"note: worker {column} did not take note in time and was replaced", file=sys.stderr)
    return DONE


def _watch(client: AdminClient, args: argparse.Namespace) -> int:
    if args.off:
        alias = client.unwatch(args.name)
    else:
        rule = {
            "max_error_share": args.max_error_share, "max_ttft_ratio": args.max_ttft_ratio,
            "min_requests": args.min_requests, "window_s": args.window,
        }  # fmt: skip
        alias = client.watch(args.name, rule, args.who)
    if args.json:
        print(json.dumps(alias, indent=2))
    else:
        print(f"{args.name} {watch_words(alias['watch']) if alias['watch'] else 'is moved by people only'}")
    return DONE


def _change(client: AdminClient, args: argparse.Namespace) -> int:
    return _changed(args, client.change_adapter(args.name, args.action))


def _remove(client: AdminClient, args: argparse.Namespace) -> int:
    return _changed(args, client.remove_adapter(args.name))


def _changed(args: argparse.Namespace, done: Mapping[str, Any]) -> int:
    words = {"pin": "pinned", "unpin": "not pinned any more", "unload": "unloaded", "remove": "removed"}[args.action]
    print(json.dumps(done, indent=2) if args.json else f"{done['name']}: {words}")
    return DONE
