"""`forgegate models pull | list | rm`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.errors import AdminError, ModelUnusable
from backends.hub.access import Access
from backends.hub.errors import NoSuchModel
from backends.hub.manifest import Manifest
from backends.hub.names import MAIN, HubName, parse_name, with_revision
from backends.hub.store import Shelf, Store
from backends.llamacpp.header import read_header
from backends.plan import size_words
from backends.sourcedigests import known_digests, stamp_of
from gateway.connection import add_arguments, admin_client
from gateway.exits import DONE, UsageError
from gateway.home import Home
from gateway.pull import pull_visibly
from gateway.table import print_table

EXAMPLE = """examples:
  forgegate models pull bartowski/Llama-3.2-1B-Instruct-GGUF          the usual quantisation (Q4_K_M where there is one)
  forgegate models pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q5_K_M   this one
  forgegate models pull Qwen/Qwen3-0.6B                               a safetensors model
  forgegate models list
  forgegate models rm bartowski/Llama-3.2-1B-Instruct-GGUF:Q5_K_M
  forgegate serve --model Qwen/Qwen3-0.6B                             pulls it at first use
"""
PULL_EXAMPLE = """NAME is ORG/NAME[:QUANT][@REVISION]. Without QUANT the repository's GGUF is taken, Q4_K_M before Q8_0 before
others, or its safetensors model where it holds no GGUF; `:safetensors` asks for that. A split GGUF is taken whole. Every file
is checked against the digest that the hub lists; a pull that was stopped, in whatever way, goes on where it was.
HF_ENDPOINT, HF_TOKEN (or the token of `hf auth login`) and the proxy variables are honoured.

examples:
  forgegate models pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q5_K_M
  forgegate models pull ORG/NAME --revision v1.0
  forgegate models pull ORG/NAME --file 'gguf/*-imat-Q4_K_M.gguf'
"""
RM_EXAMPLE = """examples:
  forgegate models rm ORG/NAME:Q5_K_M
  forgegate models rm ORG/NAME --dry-run     all that was pulled of it: only say what would go
  forgegate models rm ORG/NAME --yes
"""


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    store = Store(Home.from_env().hub)
    if args.action == "pull":
        return _pull(args, store)
    if args.action == "list":
        return _list(args, store)
    return _remove(args, store)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate models", description="Models of one's own: pulled from a hub, listed, removed.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar="pull | list | rm")
    pull = _action(actions, "pull", "fetch a model from a hub, or go on with it", PULL_EXAMPLE)
    pull.add_argument("name", metavar="NAME", help="ORG/NAME[:QUANT][@REVISION]")
    pull.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: main)")
    pull.add_argument(
        "--file", metavar="PATTERN", default="", help="of the repository's GGUF files only those that fit"
    )
    pull.add_argument("--json", action="store_true", help="one JSON event per line on standard output")
    add_arguments(_action(actions, "list", "what is on this disk, and what a running gateway serves", EXAMPLE))
    remove = _action(actions, "rm", "remove what was pulled", RM_EXAMPLE)
    remove.add_argument("name", metavar="NAME", help="ORG/NAME[:QUANT][@REVISION]; without QUANT all of ORG/NAME")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    return parser


def _action(actions: Any, name: str, words: str, epilog: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = actions.add_parser(
        name, help=words, description=f"{words[0].upper()}{words[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    return made


# pull -----------------------------------------------------------------------------------------------------------------


def _pull(args: argparse.Namespace, store: Store) -> int:
    name = with_revision(parse_name(args.name), args.revision)
    Home.from_env().ensure()
    shelf, held = pull_visibly(store, name, Access.from_env(), args.json, pattern=args.file)
    if not args.json:
        print(f"{held.name}: {size_words(held.num_bytes)} in {shelf.entry_of(held)}")
        print(f"serve it: forgegate serve --model {held.name}", file=sys.stderr)
    return DONE


# list -----------------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace, store: Store) -> int:
    on_disk = store.held()
    served = _served(args)
    if args.json:
        print(json.dumps({"on_disk": [_entry(*pair) for pair in on_disk], "served": served}, indent=2))
        return DONE
    if on_disk:
        print_table(("on disk", "quant", "size", "revision", "path"), [_disk_row(*pair) for pair in on_disk])
    else:
        print("nothing was pulled yet: forgegate models pull ORG/NAME")
    if served is not None:
        print()
        print_table(("served", "as", "context", "ready", "can"), [_served_row(model) for model in served])
    return DONE


def _served(args: argparse.Namespace) -> list[dict[str, Any]] | None:
    """None where no gateway runs. Raises CommandError, AdminError for one that was named."""
    if args.admin_url is None and Home.from_env().running() is None:
        return None
    try:
        with admin_client(args) as client:
            return client.models()
    except AdminError as exc:
        if args.admin_url is not None:
            raise
        print(f"what the running gateway serves is not known: {exc}", file=sys.stderr)
        return None


def _entry(shelf: Shelf, held: Manifest) -> dict[str, Any]:
    is_whole = shelf.manifest is not None
    return {
        "name": held.name,
        "repo": held.repo,
        "quant": held.tag or held.label,
        "revision": held.revision or MAIN,
        "commit": held.commit,
        "endpoint": held.endpoint,
        "size_bytes": held.num_bytes,
        "present_bytes": held.num_bytes if is_whole else shelf.present_bytes(held),
        "is_whole": is_whole,
        "path": str(shelf.entry_of(held)),
        "pulled_at": held.pulled_at,
    }


def _disk_row(shelf: Shelf, held: Manifest) -> tuple[str, ...]:
    entry = _entry(shelf, held)
    where = entry["path"]
    if not entry["is_whole"]:
        here = f"{size_words(entry['present_bytes'])} of {size_words(held.num_bytes)}"
        where = f"unfinished, {here} are here: `forgegate models pull {held.name}` goes on"
    return held.name, entry["quant"], size_words(held.num_bytes), f"{entry['revision']} {held.commit[:12]}", where


def _served_row(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["name"],
        model["resolved"],
        str(model["context_length"] or "-"),
        f"{model['num_ready']}/{len(model['engines'])}",
        " ".join(model["capabilities"]),
    )


# rm -------------------------------------------------------------------------------------------------------------------


def _remove(args: argparse.Namespace, store: Store) -> int:
    name = parse_name(args.name)
    found = store.find_any(name) if name.revision or name.label else _all_of(store, name)
    if not found:
        raise NoSuchModel(f"{name} is not on this disk{_others(store)}")
    for shelf, _ in found:
        shelf.require_unused()
    lines = [f"{held.name}  {size_words(shelf.present_bytes(held))}  {shelf.folder}" for shelf, held in found]
    derived = [path for shelf, held in found for path in _derived(shelf, held)]
    lines += [f"{path.name}  {size_words(path.stat().st_size)}  derived from it" for path in derived]
    print("\n".join(lines))
    if args.dry_run:
        print("dry run: nothing was removed")
        return DONE
    if not args.yes and not _is_confirmed():
        print("nothing was removed")
        return DONE
    store.empty_trash()
    for shelf, _ in found:
        with shelf.locked():
            shelf.remove()
    for path in derived:
        path.unlink(missing_ok=True)
    print("removed")
    return DONE


def _all_of(store: Store, name: HubName) -> list[tuple[Shelf, Manifest]]:
    """At whatever revision."""
    return [(shelf, held) for shelf, held in store.held() if held.repo.casefold() == name.repo.casefold()]


def _others(store: Store) -> str:
    names = [held.name for _, held in store.held()]
    return f"; there are: {', '.join(names)}" if names else ": nothing is"


def _derived(shelf: Shelf, held: Manifest) -> list[Path]:
    """GGUFs that were made of a safetensors model; they stay where a gateway of this home may be serving them."""
    home = Home.from_env()
    if held.is_gguf or home.running() is not None:
        return []
    try:
        digest = known_digests(home.models).get(stamp_of(shelf.entry_of(held)), "")
    except (ModelUnusable, OSError):  # not whole: nothing can have been made of it
        return []
    # Other models may have folders of the same name: what was made of them carries another digest.
    made = home.models.glob(f"{held.entry}-{digest.removeprefix('sha256:')[:12]}*.gguf") if digest else ()
    return sorted(path for path in made if _source_of(path) == digest)


def _source_of(path: Path) -> str:
    try:
        return read_header(path).source_digest
    except ModelUnusable:
        return ""


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("this needs a yes: on a terminal, or by --yes")
    return input("remove this? [y/N] ").strip().lower() in ("y", "yes")
