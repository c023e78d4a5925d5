"""The one command. Each subcommand is imported when it is used, so that `forgegate --help` costs nothing."""

from __future__ import annotations

import difflib
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from gateway.exits import BAD_INPUT, DONE, UNABLE

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    target: str
    """`module:function`; the function takes the remaining arguments and returns an exit code."""
    help: str


COMMANDS = {
    "serve": Command(
        "gateway.control.serve:main", "start engines and serve them behind one OpenAI-compatible endpoint"
    ),
    "chat": Command("gateway.chat:main", "talk to a model in the terminal"),
    "install": Command("gateway.install:main", "install the environment of an engine or of the trainer, or upgrade it"),
    "doctor": Command("gateway.doctor:main", "what this machine can run, what is missing, how to get it"),
    "engines": Command(
        "gateway.engines:main",
        "list, tune, drain, sleep, wake, restart the engines of a running gateway, read their logs",
    ),
    "models": Command("gateway.models:main", "pull models from a hub, list them and what is served, remove them"),
    "adapters": Command(
        "gateway.adapters:main", "publish LoRA adapters, flip, split and roll back what serves, prove it"
    ),
    "decide": Command("gateway.decide.command:main", "prompting, RAG, fine-tuning or optimisation: which one to try"),
    "data": Command("gateway.training:data", "collect, vary, check, clean, mix, split, show and review training data"),
    "train": Command("gateway.training:train", "fine-tune a model with LoRA or QLoRA, as a YAML recipe says"),
    "export": Command("gateway.training:export", "export what was trained: the adapter, or a model with it merged in"),
    "parity": Command("gateway.training:parity", "hold what an endpoint serves against the trained adapter"),
    "evaluate": Command(
        "gateway.training:evaluate", "ask models a suite and hold them against each other, item by item"
    ),
    "gate": Command(
        "gateway.training:gate", "GO or NO-GO: whether a candidate may take the place of what an alias serves"
    ),
    "quantize": Command(
        "gateway.quantize.command:main", "make smaller forms of a model: GGUF levels, AWQ; measure what each costs"
    ),
    "bench": Command("gateway.bench:main", "measure an endpoint, or serve a mock one"),
    "optimize": Command("benchmarks.optimize.command:main", "find engine settings that serve more within an SLO"),
}

EPILOG = """
exit codes: 0 done, 1 a verdict is negative, 2 bad usage or bad input, 3 the environment cannot do it

example:
  forgegate serve                 # then, in another terminal:
  forgegate chat
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the one boundary that turns errors into one line and an exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `forgegate engines list | head`: nobody reads any more. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as exc:  # noqa: BLE001 - named boundary: no traceback reaches a user
        return report(exc)


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return DONE if arguments else BAD_INPUT
    name, *rest = arguments
    if name in ("--version", "-V"):
        from gateway.version import version

        print(f"forgegate {version()}")
        return DONE
    if name not in COMMANDS:
        return _unknown(name)
    module, _, function = COMMANDS[name].target.partition(":")
    run: Callable[[list[str]], int] = getattr(import_module(module), function)
    try:
        return run(rest)
    except SystemExit as exc:  # argparse: 0 after --help, 2 after bad usage
        return exc.code if isinstance(exc.code, int) else BAD_INPUT if exc.code else DONE


def usage() -> str:
    lines = [
        "usage: forgegate COMMAND [OPTIONS]",
        "",
        "One OpenAI-compatible endpoint over vLLM, llama.cpp and remote engines.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<9} {command.help}" for name, command in COMMANDS.items()]
    lines += ["", "  forgegate COMMAND --help    options and examples of a command", "  forgegate --version"]
    return "\n".join(lines) + "\n" + EPILOG.rstrip()


def report(exc: Exception) -> int:
    """Tell the user in words; what nobody foresaw goes to a crash log."""
    code = getattr(exc, "exit_code", None)
    if isinstance(code, int):
        print(f"error: {exc}", file=sys.stderr)
        return code
    where = _write_crash_log(exc)
    detail = f"{type(exc).__name__}: {exc}".splitlines()[0]
    print(f"error: internal error ({detail}); {where}", file=sys.stderr)
    return UNABLE


def _unknown(name: str) -> int:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `forgegate {close[0]}`?" if close else f"commands: {', '.join(COMMANDS)}"
    print(f"error: unknown command {name!r}; {hint}", file=sys.stderr)
    return BAD_INPUT


def _write_crash_log(exc: Exception) -> str:
    from gateway.home import Home

    text = "".join(traceback.format_exception(exc))
    path = Home.from_env().logs / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        return f"its traceback could not be written to {path}"
    return f"its traceback is in {path}"


if __name__ == "__main__":
    sys.exit(main())
