"""`forgegate serve`: read, check, bring up, serve until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from backends.base import untold
from backends.hub.access import Access
from backends.hub.names import looks_like_hub_name, parse_name, public_name
from backends.plan import Plan
from gateway.config import NAME, Config, single_model
from gateway.configfile import load
from gateway.control import failpoints
from gateway.control.console import Console
from gateway.control.hubmodels import ENGINES as HUB_ENGINES
from gateway.control.hubmodels import HubModels
from gateway.control.plans import PoolPlan, as_json, as_table, plan_pools, summary
from gateway.control.recording import notice, require_writable
from gateway.control.runtime import Pools, Runtime
from gateway.control.supervisor import backends_of
from gateway.exits import DONE, CommandError, UsageError
from gateway.home import Home

T = TypeVar("T")

EXAMPLE = """examples:
  forgegate serve                                  the bundled demo model
  forgegate serve --model ~/models/llama.gguf      a GGUF file
  forgegate serve --model ORG/NAME:Q5_K_M          a model of a hub, pulled at first use
  forgegate serve --config forgegate.yaml          several models, replicas, API keys
  forgegate serve --config forgegate.yaml --check  only validate
  forgegate serve --model MODEL --plan             which options it picks for the free memory, and why
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate serve", description="Start engines and serve them behind one OpenAI-compatible endpoint.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    what = parser.add_argument_group("what to serve")
    what.add_argument(
        "--config", metavar="FILE", type=Path, help="forgegate.yaml; excludes --model, --engine and --name"
    )
    what.add_argument(
        "--model",
        metavar="MODEL",
        help="GGUF file, model folder, ORG/NAME[:QUANT] of a hub, or `demo` (default); a URL for remote",
    )
    what.add_argument("--engine", help="llamacpp (default), vllm or remote")
    what.add_argument("--name", help="name clients ask for (default: made from MODEL)")
    where = parser.add_argument_group("where; these go before what the file says")
    where.add_argument("--host", help="address of the endpoint (default: 127.0.0.1)")
    where.add_argument("--port", type=_port, metavar="N", help="its port (default: 8080; 0: any free one)")
    where.add_argument(
        "--admin-port", type=_port, metavar="N", help="port of the admin API (default: 8081; 0: any free one)"
    )
    where.add_argument("--workers", type=_workers, metavar="N", help="data worker processes (default: 1)")
    parser.add_argument(
        "--check", action="store_true", help="validate configuration, models and engines; start nothing"
    )
    parser.add_argument(
        "--plan", action="store_true", help="print the options picked for the free memory, and the sum; start nothing"
    )
    parser.add_argument("--offline", action="store_true", help="ask no hub: serve only what is on this disk")
    parser.add_argument("--help-config", action="store_true", help="print every key of forgegate.yaml with its meaning")
    parser.add_argument("--json", action="store_true", help="one JSON event per line on standard output")
    return parser


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.help_config:
        from gateway.configdocs import render

        print(render(), end="")
        return DONE
    failpoints.check()
    config, home = with_flags(read_config(args), args), Home.from_env()
    with HubModels(config, home) as models:  # as long as it serves, nobody removes what it serves
        return _run(args, models, home, Console(args.json))


def _run(args: argparse.Namespace, models: HubModels, home: Home, console: Console) -> int:
    only_looks = args.check or args.plan
    models.use_pulled(console.note if not only_looks else lambda text: None)
    to_pull = _pull_missing(args, models, home)
    config = models.config
    pools = backends_of(config, home)
    planned = plan_pools(pools, console.note if not args.json or not only_looks else untold)
    if args.plan:
        print(json.dumps(as_json(planned), indent=2) if args.json else as_table(planned))
        return DONE
    if args.check:
        _report_check(config, planned, to_pull)
        return DONE
    home.ensure()
    home.admin_token()
    require_writable(config.conversations)
    for line in filter(None, map(summary, planned)):
        console.note(line)
    return asyncio.run(serve(config, pools, [pool.plan for pool in planned], home, console))


def _pull_missing(args: argparse.Namespace, models: HubModels, home: Home) -> list[str]:
    """For `--check` only what would be pulled, in words. Raises CommandError."""
    if not models.missing:
        return []
    access = Access.from_env()
    access = replace(access, is_offline=access.is_offline or args.offline)
    if args.plan:
        name = models.missing[0]
        raise CommandError(
            f"{name} is not on this disk, so nothing can be planned: `forgegate models pull {name}` first"
        )
    if args.check:
        return models.preview(access)
    home.ensure()
    models.pull(access, args.json)
    return []


def read_config(args: argparse.Namespace) -> Config:
    """Raises UsageError."""
    if args.config is None:
        for flag in ("model", "engine", "name"):
            if getattr(args, flag) == "":
                raise UsageError(f"--{flag} is empty")
        engine, model = args.engine or "llamacpp", args.model or "demo"
        if engine != "remote" and model.startswith(("http://", "https://")):
            raise UsageError(f"--model {model}: a URL needs --engine remote")
        if engine == "remote" and args.model is None:
            raise UsageError("--engine remote needs --model URL")
        name = args.name or _name_of(engine, model)
        if not NAME.fullmatch(name):
            raise UsageError(f"--name {name!r}: letters, digits and . _ - / only, beginning with a letter or digit")
        return single_model(engine, model, name)
    given = [flag for flag in ("model", "engine", "name") if getattr(args, flag) is not None]
    if given:
        raise UsageError(f"--config and --{given[0]} exclude each other: the file says what to serve")
    return load(args.config)


def with_flags(config: Config, args: argparse.Namespace) -> Config:
    """The file's server section, flags first."""
    server = config.server
    changes = {key: value for key in ("host", "port", "workers") if (value := getattr(args, key)) is not None}
    if args.admin_port is not None:
        changes["admin"] = replace(server.admin, port=args.admin_port)
    changed = replace(server, **changes)
    if changed.port and changed.port == changed.admin.port:
        raise UsageError(f"the endpoint and the admin API cannot share port {changed.port}: --port, --admin-port")
    return replace(config, server=changed)


async def serve(config: Config, pools: Pools, plans: Sequence[Plan | None], home: Home, console: Console) -> int:
    """Until a signal: the first drains, the second ends everything at once. Raises CommandError, BackendError."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup keeps its meaning
            loop.add_signal_handler(number, signals.put_nowait, number)
    told = asyncio.create_task(signals.get())
    runtime = await _unless(told, Runtime.open(config, pools, home, console, plans))
    if runtime is None:
        return DONE
    async with runtime:
        await _unless(told, _announce(runtime, config, home, console))
        await told
        start = time.monotonic()
        console.note("stopping: running requests finish first; once more ends them at once")
        await _unless(asyncio.create_task(signals.get()), runtime.drain())
    console.stopped(time.monotonic() - start)
    return DONE


async def _announce(runtime: Runtime, config: Config, home: Home, console: Console) -> None:
    await runtime.settle()
    console.ready(runtime.url, runtime.admin_url, str(home.token_file), runtime.models(), os.getpid())
    if said := notice(config.conversations):
        console.note(said)


def _name_of(engine: str, model: str) -> str:
    if engine == "remote":
        return "remote"
    if engine in HUB_ENGINES and looks_like_hub_name(model):
        return public_name(parse_name(model))
    name = Path(model).name.removesuffix(".gguf")
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name).lstrip("._-") or "model"


async def _unless(told: asyncio.Task[int], work: Coroutine[None, None, T]) -> T | None:
    """The outcome of `work`; None, and `work` cancelled, if `told` comes first."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({told, task}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    return None if task.cancelled() else task.result()


def _report_check(config: Config, planned: list[PoolPlan], to_pull: list[str]) -> None:
    server = config.server
    print(
        f"endpoint {server.host}:{server.port}, {server.workers} worker(s); admin API {server.admin.host}:{server.admin.port}"
    )
    for pool in planned:
        print(f"{pool.model}: {pool.what}")
    for line in to_pull:
        print(line)
    for line in filter(None, map(summary, planned)):
        print(line)
    print(f"API keys: {', '.join(key.name for key in config.keys) or 'none asked for'}")
    if said := notice(config.conversations):
        print(said)
    print("check passed: nothing was started")


def _port(text: str) -> int:
    return _bounded(text, 0, 65535)


def _workers(text: str) -> int:
    return _bounded(text, 1, 64)


def _bounded(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {text!r}")
    return int(text)
