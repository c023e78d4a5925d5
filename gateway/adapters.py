"""`forgegate adapters list | show | publish | alias | split | rollback | pin | unpin | unload | remove`."""

from __future__ import annotations

import argparse
import getpass
import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.adapter.pack import pack
from backends.admin_client import AdminClient
from backends.plan import size_words
from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE, UsageError
from gateway.publishview import make_view
from gateway.table import print_table

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
    "alias": """examples:
  forgegate adapters alias support support@3f2a91c04b7d
""",
    "split": """A user or session stays with one version. Weights are relative.

examples:
  forgegate adapters split support support@3f2a91c04b7d=90 support@8c0d11e2f3a4=10
""",
    "rollback": """examples:
  forgegate adapters rollback support      to what it served before the last change
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
    split = _action(actions, "split", "let an alias serve several versions by weight", _split, is_change=True)
    split.add_argument("name", metavar="NAME", help="the alias")
    split.add_argument("shares", metavar="VERSION=WEIGHT", nargs="+", type=_share, help="weights are whole numbers")
    rollback = _action(actions, "rollback", "back to what an alias served before", _rollback)
    rollback.add_argument("name", metavar="NAME", help="the alias")
    _add_who(rollback)
    for name, words in (
        ("pin", "keep a version loaded"), ("unpin", "let it go when room is needed"), ("unload", "free it on every engine"),
    ):  # fmt: skip
        _action(actions, name, words, _change).add_argument("name", metavar="VERSION")
    _action(actions, "remove", "forget a version and delete its files", _remove).add_argument("name", metavar="VERSION")
    return parser


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
            help="where the gate asks for a verdict: move without one; recorded",
        )
        _add_who(made)
    add_arguments(made)
    return made


def _add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--who", default=_user(), help="recorded with the change (default: %(default)s)")


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


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
        print_table(("alias", "model", "serves", "gate"), [_alias_row(alias) for alias in aliases])
        print()
    heads = ("version", "model", "state", "proof", "loaded on", "rank", "size", "age")
    print_table(heads, [_version_row(version) for version in versions])
    return DONE


def _alias_row(alias: Mapping[str, Any]) -> tuple[str, ...]:
    return alias["name"], alias["model"], _shares(alias["shares"]), alias["gate"] or "-"


def _shares(shares: Sequence[Mapping[str, Any]]) -> str:
    if len(shares) == 1:
        return str(shares[0]["adapter"])
    total = sum(share["weight"] for share in shares) or 1
    return ", ".join(f"{share['adapter']} {share['weight'] / total:.0%}" for share in shares)


def _version_row(version: Mapping[str, Any]) -> tuple[str, ...]:
    engines = ", ".join(engine["engine"] for engine in version["engines"] if engine["is_resident"]) or "-"
    return (
        version["name"],
        version["model"],
        version["state"] + (", pinned" if version["is_pinned"] else ""),
        version["proof"] or "-",
        engines,
        str(version["rank"] or "-"),
        size_words(version["size_bytes"]) if version["size_bytes"] else "-",
        _age(version["created"]),
    )


def _show(client: AdminClient, args: argparse.Namespace) -> int:
    found = client.adapter(args.name)
    if args.json:
        print(json.dumps(found, indent=2))
        return DONE
    _show_alias(found) if found["kind"] == "alias" else _show_version(found)
    return DONE


def _show_alias(found: Mapping[str, Any]) -> None:
    alias = found["alias"]
    print(
        f"{alias['name']}: an alias of model {alias['model']}, serves {_shares(alias['shares'])}{_gate(alias['gate'])}"
    )
    for version in found["versions"]:
        print()
        _print_version(version)
    print()
    print_table(("when", "who", "change", "serves", "reason"), [_change_row(change) for change in found["history"]])


def _show_version(found: Mapping[str, Any]) -> None:
    (version,) = found["versions"]
    _print_version(version)
    serving = ", ".join(version["aliases"])
    print(f"served by: {serving}" if serving else "served by no alias")


def _print_version(version: Mapping[str, Any]) -> None:
    words = f"{version['name']}: {version['state']}, for model {version['model']}"
    if version["rank"]:
        words += f", rank {version['rank']}, {size_words(version['size_bytes'])}"
    print(f"{words}{', pinned' if version['is_pinned'] else ''}{_gate(version['gate'])}")
    print(f"published {_time(version['created'])} by {version['who'] or 'unknown'}; digest {version['digest']}")
    if version["problem"]:
        print(f"no engine will hold it: {version['problem']}")
    if version["engines"]:
        heads = ("engine", "loaded", "proof", "detail")
        print_table(heads, [_engine_row(engine) for engine in version["engines"]])


def _engine_row(engine: Mapping[str, Any]) -> tuple[str, ...]:
    return engine["engine"], "yes" if engine["is_resident"] else "no", engine["proof"] or "-", engine["detail"] or "-"


def _change_row(change: Mapping[str, Any]) -> tuple[str, ...]:
    served = _shares(change["shares"]) or "-"
    return _time(change["at"]), change["who"] or "-", change["kind"], served, change["reason"] or "-"


def _gate(gate: str) -> str:
    return f", {gate}" if gate else ""


def _time(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _age(unix_s: float) -> str:
    seconds = max(0, int(time.time() - unix_s))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


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
    return _moved(args, client.point(args.name, {args.target: 1}, args.who, args.force))


def _split(client: AdminClient, args: argparse.Namespace) -> int:
    shares = dict(args.shares)
    if len(shares) != len(args.shares):
        raise UsageError("a version is named twice: give each one weight")
    return _moved(args, client.point(args.name, shares, args.who, args.force))


def _rollback(client: AdminClient, args: argparse.Namespace) -> int:
    return _moved(args, client.rollback(args.name, args.who))


def _moved(args: argparse.Namespace, change: Mapping[str, Any]) -> int:
    if args.json:
        print(json.dumps(change, indent=2))
    else:
        print(f"{args.name} serves {_shares(change['shares'])}{_gate(change['gate'])}")
    for column in change["replaced_workers"]:
        print(f"note: worker {column} did not take note in time and was replaced", file=sys.stderr)
    return DONE


def _change(client: AdminClient, args: argparse.Namespace) -> int:
    return _changed(args, client.change_adapter(args.name, args.action))


def _remove(client: AdminClient, args: argparse.Namespace) -> int:
    return _changed(args, client.remove_adapter(args.name))


def _changed(args: argparse.Namespace, done: Mapping[str, Any]) -> int:
    words = {"pin": "pinned", "unpin": "not pinned any more", "unload": "unloaded", "remove": "removed"}[args.action]
    print(json.dumps(done, indent=2) if args.json else f"{done['name']}: {words}")
    return DONE
