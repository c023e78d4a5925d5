"""The engine's HTTP face: `python -m backends.llamacpp.server --model FILE.gguf --served-model-name NAME --port P`.

Exit codes: 0 stopped as asked, 1 the engine died, 3 it could not start (one line on stderr says why).
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from backends.llamacpp.app import EngineApp
from backends.llamacpp.binding.devices import compute_backend
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.library import version
from backends.llamacpp.chat import TemplateError
from backends.llamacpp.loading import load
from backends.llamacpp.mailbox import Mailbox
from backends.llamacpp.options import Options, OptionsError, add_arguments, from_args
from backends.llamacpp.served import ServedModel
from backends.llamacpp.threads import num_physical_cores

EXIT_DIED = 1
EXIT_REFUSED = 3
_GRACE_S = 10


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    faulthandler.enable()  # a crash inside llama.cpp names the place in the engine's log
    try:
        options = from_args(args)
        listener = _listen(args.host, args.port)
    except OptionsError as error:
        return _refuse("; ".join(error.problems))
    except OverflowError:
        return _refuse(f"--port: must be 0 to 65535, got {args.port}")
    except OSError as error:
        return _refuse(f"cannot listen on {args.host}:{args.port}: {error.strerror or error}")
    code: int = uvloop.run(_serve(args, options, listener))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backends.llamacpp.server", description="The llama.cpp engine.")
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--served-model-name", default="", help="name in /v1/models (default: the file's name)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    add_arguments(parser)
    return parser


def _listen(host: str, port: int) -> socket.socket:
    # With the protocol left at 0 asyncio would not switch Nagle's algorithm off: 40 ms more to a first token.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


async def _serve(args: argparse.Namespace, options: Options, listener: socket.socket) -> int:
    """Answer 503 while the model loads, then serve until a signal or the engine's death."""
    secret = os.environ.pop("FORGEGATE_ENGINE_SECRET", "")
    app = EngineApp(secret=secret)
    server = _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_S,
            backlog=2048,
        )
    )
    serve = asyncio.create_task(server.serve(sockets=[listener]))
    threads = options.n_threads or num_physical_cores()
    name = args.served_model_name or args.model.stem
    mailbox: Mailbox[list[Any]] = Mailbox(asyncio.get_running_loop(), app.hand_out)
    loading = asyncio.create_task(asyncio.to_thread(load, args.model, name, options, threads, mailbox.put))
    await asyncio.wait((serve, loading), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        serve.result()
        # Asked to stop. llama.cpp's loading cannot be interrupted, and nothing is open that would have to be closed.
        os._exit(0)
    try:
        serving = loading.result()
    except (ModelError, TemplateError, OSError, MemoryError) as error:
        server.should_exit = True
        await serve
        return _refuse(str(error))
    app.serving = serving
    _announce(serving, args, threads)
    watch = asyncio.create_task(_watch(serving, server))
    await serve
    failure = serving.failure
    await asyncio.to_thread(serving.close)
    mailbox.close()
    await watch
    if failure:
        print(f"error: the engine died: {failure}", file=sys.stderr, flush=True)
        return EXIT_DIED
    return 0


async def _watch(serving: ServedModel, server: uvicorn.Server) -> None:
    """End the process when the engine thread is dead: its supervisor starts a sound one."""
    await asyncio.to_thread(serving.wait)
    server.should_exit = True


def _announce(serving: ServedModel, args: argparse.Namespace, threads: int) -> None:
    print(
        f"ready: llama.cpp {version()} on {compute_backend()}, {threads} threads; {serving.summary()}; "
        f"http://{args.host}:{args.port}",
        flush=True,
    )


class _Server(uvicorn.Server):
    """A second signal of either kind ends at once (uvicorn: only a second SIGINT)."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig in (signal.SIGINT, signal.SIGTERM)
        self.should_exit = True


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return EXIT_REFUSED


if __name__ == "__main__":
    code = main()
    # A grammar that is being compiled cannot be stopped, and Python would wait for its thread.
    os._exit(code)
