"""How far an answer depends on what else the engine does: `python -m benchmarks.invariance`.

The same greedy prompts are asked alone, inside a full batch, with a reused prefix, after a preemption; and of
transformers in fp32. Every answer is compared with the one given alone, token by token. Writes JSON, and Markdown beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from benchmarks import arguments, eventloop, report
from benchmarks.arguments import Parser
from benchmarks.child import Child, ChildError, Launch
from benchmarks.client import Client, Target, TargetError
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, refuse
from benchmarks.invariance_compare import Comparison, compare
from benchmarks.invariance_modes import MODES, Asking, Mode, Run, room_of, run_mode
from benchmarks.invariance_record import (
    Answer,
    InvarianceError,
    PromptSet,
    first_difference,
    read_answers,
    read_prompts,
)
from benchmarks.invariance_report import invariance_document, markdown
from benchmarks.peer_launch import free_port
from benchmarks.probe import UnusableError, find_model

_EXAMPLE = """examples:
  python -m benchmarks.invariance --out benchmarks/results/invariance.json
  python -m benchmarks.invariance --no-batch-invariant --out benchmarks/results/invariance.default.json

exit codes: 0 all bounds met, 1 one is missed, 2 bad usage, 3 the engine or transformers cannot be run"""

_OWN_SHARE, _REFERENCE_SHARE = 0.99, 0.95
"""Of the prompts, so many must be answered wholly identically by the engine's own modes, and by transformers."""
_DEMO = Path(__file__).resolve().parent.parent / "backends" / "demo" / "weights" / "target"
_READY_S = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the engine is stopped then, too
    try:
        options = _parser().parse_args(words)
        return _measure(options, words)
    except SystemExit as exc:
        return int(exc.code or 0)
    except (TargetError, argparse.ArgumentTypeError) as exc:
        return refuse(str(exc), EXIT_USAGE)
    except UnusableError as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT if exc.is_environment else EXIT_USAGE)
    except (InvarianceError, ChildError) as exc:
        return refuse(str(exc), EXIT_ENVIRONMENT)
    except KeyboardInterrupt:
        return refuse("stopped", 130)


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.invariance", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    names = [mode.name for mode in MODES[1:]]
    add("--weights", type=Path, default=_DEMO, metavar="DIR", help="safetensors of the model (default: the demo model)")
    add("--model", type=Path, metavar="FILE.gguf", help="the same for the engine (default: made of --weights in F16)")
    add("--url", help="ask this server instead of engines started here; its prefix cache must be off")
    add(
        "--batch-invariant",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start the engines with this option (default; requests are not preempted then)",
    )
    add("--modes", type=arguments.names, metavar="M,M", help=f"besides alone: of {', '.join(names)} (default: all)")
    add("--reference", action=argparse.BooleanOptionalAction, default=True, help="compare with transformers, too")
    add("--prompts", type=arguments.whole(1), default=500, metavar="N", help="compared (default 500)")
    add("--calibration", type=arguments.whole(1), default=100, metavar="N", help="others, for epsilon (default 100)")
    add("--tokens", type=arguments.whole(1), default=64, metavar="N", help="of each answer (default 64)")
    add("--streams", type=arguments.whole(2), default=32, metavar="C", help="of a full batch (default 32)")
    add("--seed", type=arguments.whole(0), default=0, help="of the prompts and neighbours (default 0)")
    add(
        "--threads",
        type=arguments.whole(1),
        metavar="T",
        help="of engine and transformers (default: the engine's own, and 1)",
    )
    add("--engine-flags", default="", metavar="TEXT", help="more of them, such as --engine-flags='--flash-attn off'")
    add("--timeout", type=arguments.number(0.01), default=600.0, metavar="S", help="for one request (default 600)")
    add("--out", type=Path, required=True, metavar="FILE.json", help="result; the report goes to FILE.md")
    return parser


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    modes = _modes(options)
    with tempfile.TemporaryDirectory(prefix="forgegate-invariance-") as folder:
        setup = _prepare(options, Path(folder))
        engine, runs = eventloop.run(_run_modes(setup, modes, options))
        reference = _reference_answers(setup, options) if options.reference else None
        result = _result(setup, engine, runs, reference, words)
    text = markdown(result)
    report.write(options.out, report.dump(result))
    report.write(options.out.with_suffix(".md"), text.encode())
    print(text, end="")
    return EXIT_DONE if result["is_met"] else EXIT_NEGATIVE


def _modes(options: argparse.Namespace) -> list[Mode]:
    known = [mode for mode in MODES[1:] if not options.url or not (mode.is_primed or mode.is_cramped)]
    if options.batch_invariant:
        known = [mode for mode in known if not mode.is_cramped]  # each request has cells of its own then
    wanted = options.modes or tuple(mode.name for mode in known)
    unknown = [name for name in wanted if name not in {mode.name for mode in known}]
    if unknown:
        listed = ", ".join(mode.name for mode in known)
        where = " with --url" if options.url else " with --batch-invariant" if options.batch_invariant else ""
        raise argparse.ArgumentTypeError(f"there is no mode {unknown[0]!r}{where}; one of {listed}")
    return [MODES[0], *(mode for mode in known if mode.name in wanted)]


# ---------------------------------------------------------------------- what is asked, and of whom


@dataclass(frozen=True, slots=True)
class _Setup:
    options: argparse.Namespace
    folder: Path
    prompts_file: Path
    prompts: PromptSet
    model: Path | None
    """None where a server at a URL is asked."""


def _prepare(options: argparse.Namespace, folder: Path) -> _Setup:
    """Make the prompts, and the GGUF where it is needed and none was given."""
    if not options.weights.is_dir():
        raise argparse.ArgumentTypeError(f"--weights: no such folder: {options.weights}")
    if options.url and (options.model or options.engine_flags):
        raise argparse.ArgumentTypeError(
            "--url: that server has its model and flags; leave --model and --engine-flags out"
        )
    if options.model and not options.model.is_file():
        raise argparse.ArgumentTypeError(f"--model: no such file: {options.model}")
    prompts_file = folder / "prompts.json"
    num = options.prompts + options.calibration
    wanted = ("--count", str(num), "--seed", str(options.seed), "--out", str(prompts_file))
    _child("benchmarks.invariance_reference", "prompts", "--weights", str(options.weights), *wanted)
    model = options.model
    if model is None and not options.url:
        model = folder / "demo.gguf"
        _child("backends.llamacpp.convert", str(options.weights), str(model))
    return _Setup(options, folder, prompts_file, read_prompts(prompts_file), model)


def _child(module: str, *words: str) -> None:
    """Run a module of ours to its end. Raises InvarianceError with its last line."""
    done = subprocess.run((sys.executable, "-m", module, *words), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InvarianceError(f"{module}: {lines[-1].removeprefix('error: ')}")


def _reference_answers(setup: _Setup, options: argparse.Namespace) -> list[Answer]:
    _say("transformers answers")
    out = setup.folder / "reference.json"
    words = ["--weights", str(options.weights), "--prompts", str(setup.prompts_file), "--tokens", str(options.tokens)]
    words += ["--threads", str(options.threads)] if options.threads else []
    _child("benchmarks.invariance_reference", "answers", *words, "--out", str(out))
    return read_answers(out)


# ---------------------------------------------------------------------- asking


async def _run_modes(
    setup: _Setup, modes: Sequence[Mode], options: argparse.Namespace
) -> tuple[dict[str, Any], list[Run]]:
    """What the first server says of itself, and the runs; an engine is started for each set of flags."""
    engine: dict[str, Any] = {}
    runs: list[Run] = []
    room = room_of(setup.prompts, options.tokens)
    for flags in dict.fromkeys(mode.engine_flags(room) for mode in modes):
        child = _start(setup, flags, options) if setup.model else None
        client = Client(Target.from_url(child[1] if child else options.url), timeout_s=options.timeout)
        try:
            if child:
                await child[0].wait_ready(client, _READY_S)
            name = await find_model(client, None)
            engine = engine or await _describe(client, name)
            asking = Asking(name, options.tokens, options.streams, options.seed)
            for mode in (mode for mode in modes if mode.engine_flags(room) == flags):
                runs.append(await run_mode(client, mode, setup.prompts, asking))
                _say(_progress(runs))
        finally:
            client.close()
            if child:
                child[0].stop()
    return engine, runs


def _progress(runs: Sequence[Run]) -> str:
    last, pairs = runs[-1], zip(runs[0].answers, runs[-1].answers, strict=True)
    same = sum(first_difference(one, other) is None for one, other in pairs)
    return f"{last.mode.name}: {len(last.answers)} answers in {last.duration_s:.0f} s, {same} of them as alone"


def _start(setup: _Setup, flags: Sequence[str], options: argparse.Namespace) -> tuple[Child, str]:
    port = free_port()
    argv = [sys.executable, "-m", "backends.llamacpp.server", "--model", str(setup.model), "--port", str(port)]
    argv += ["--n-seq-max", str(options.streams), *(("--n-threads", str(options.threads)) if options.threads else ())]
    if options.batch_invariant:
        argv += ["--batch-invariant", "true", "--n-ctx-seq", str(room_of(setup.prompts, options.tokens))]
    argv += [*flags, *shlex.split(options.engine_flags)]
    launch = Launch(tuple(argv), "/health", {"FORGEGATE_ENGINE_SECRET": ""})
    return Child(launch, setup.folder / "engine.log"), f"http://127.0.0.1:{port}"


async def _describe(client: Client, name: str) -> dict[str, Any]:
    """What the server says of its model and itself; another server than ours may say less."""
    found: dict[str, Any] = {"name": name, "backend": None, "threads": None, "source_digest": None}
    health, models = await client.get("/health"), await client.get("/v1/models")
    try:
        said = orjson.loads(health.body)
        found |= {"backend": said.get("backend"), "threads": said.get("n_threads")}
        found["source_digest"] = orjson.loads(models.body)["data"][0].get("meta", {}).get("source_digest")
    except (orjson.JSONDecodeError, KeyError, IndexError, AttributeError):
        pass
    return found


# ---------------------------------------------------------------------- the result


def _result(
    setup: _Setup, engine: dict[str, Any], runs: list[Run], reference: list[Answer] | None, words: Sequence[str]
) -> dict[str, Any]:
    options, prompts = setup.options, setup.prompts.prompts
    alone, *others = runs
    own = [compare(run.mode.name, prompts, alone.answers, run.answers, options.prompts, _OWN_SHARE) for run in others]
    comparisons: list[Comparison] = list(own)
    if reference is not None:
        comparisons.append(
            compare("transformers", prompts, alone.answers, reference, options.prompts, _REFERENCE_SHARE)
        )
    differing = {mismatch.prompt for comparison in own for mismatch in comparison.mismatches}
    return invariance_document(
        ["python", "-m", "benchmarks.invariance", *words],
        plan={
            "num_prompts": options.prompts,
            "num_calibration": options.calibration,
            "num_tokens": options.tokens,
            "num_places": options.streams,
            "seed": options.seed,
            "batch_invariant": None if options.url else options.batch_invariant,
            "engine_flags": options.engine_flags,
        },
        model={**engine, "file": setup.model.name if setup.model else None, "sha256": _sha256(setup.model)},
        versions=_versions(),
        runs=runs,
        comparisons=comparisons,
        num_everywhere=options.prompts - len(differing),
    )


def _sha256(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in ("llama-cpp-python", "numpy", "torch", "transformers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
