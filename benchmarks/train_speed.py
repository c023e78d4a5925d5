"""QLoRA's speed and memory on one GPU: `python -m benchmarks.train_speed --model DIR --workdir DIR --out FILE.json`.

Two set-ups train on the same rows in turns, each turn a process of its own: `plain`, as guides of Hugging Face's libraries write it
(benchmarks/train_speed_plain.py), and variants of a recipe by `forgegate train`. Rows have lognormal lengths in the model's own tokens;
tokens that are no padding are what counts. A turn loads the model, makes updates that are not counted and then those that are. Each turn is
kept in the work folder: called again with the same one, the benchmark goes on with what is left, or failed. Beside it stand the rate at
which this card multiplies matrices, and what that rate would allow. Without a GPU it runs on the CPU, which tries it out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import arguments, gpu_memory, report, train_speed_limit, train_speed_report, train_speed_turns
from benchmarks.adapter_program import workdir
from benchmarks.arguments import Parser
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse
from benchmarks.environment import version_of
from benchmarks.train_speed_limit import Shape
from benchmarks.train_speed_plan import PLAIN, TURNS, Plan, numbered, with_variants
from benchmarks.train_speed_turns import PROFILE, TurnError
from benchmarks.vllm_gateway import say

SCRIPT_S = 300.0
"""For a script that writes the rows, or multiplies matrices."""
MARGIN = 1.2
"""Rows for more updates than are made, so that none comes from an epoch's end."""
MIN_ROWS = 400
"""Fewer are packed worse than a training set is."""
PACKS, DEFAULT_MEAN = 4, 550.0
_VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "triton")
_EXAMPLE = r"""examples:
  python -m benchmarks.train_speed --model llama-8b --workdir work --out train-speed.json --budget 540
  python -m benchmarks.train_speed --model llama-8b --workdir work --out train-speed.json --turns ours --profile ours
  python -m benchmarks.train_speed --model llama-8b --workdir work --out train-speed.json --turns plain,ours,micro-8 \
      --variant micro-8 micro_batch_size=8 gradient_accumulation_steps=1

exit codes: 0 all turns are measured, 1 a turn failed or is left, 2 bad usage, 3 a script could not run"""


class ScriptError(RuntimeError):
    """A script did not end well; the message holds its last lines."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(
        lambda: _run(_parser().parse_args(words), words), {ValueError: EXIT_USAGE, ScriptError: EXIT_ENVIRONMENT}
    )


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.train_speed", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="folder of the full-precision model, real or random")
    add("--workdir", type=Path, metavar="DIR", help="rows and turns; the same for every call")
    add("--out", type=Path, required=True, metavar="FILE.json", help="result; the table goes to FILE.md")
    add(
        "--budget",
        type=arguments.number(1),
        default=3600.0,
        metavar="S",
        help="no turn begins that may not end within it, going by the longest one (default 3600)",
    )
    add("--turn-timeout", type=arguments.number(1), default=420.0, metavar="S", help="of one turn (default 420)")
    add(
        "--turns",
        type=arguments.names,
        default=TURNS,
        metavar="A,B,A",
        help=f"in this order (default {','.join(TURNS)})",
    )
    add(
        "--variant", nargs="+", action="append", default=[], metavar="NAME [KEY=VALUE ...]",
        help="another variant: what it changes of the recipe; may be repeated",
    )  # fmt: skip
    add(
        "--profile", metavar="NAME", help="at last a turn more, whose updates are profiled; it goes to FILE.profile.txt"
    )
    whole = arguments.whole
    add("--warm-up", type=whole(0), default=2, metavar="N", help="updates that are not counted (default 2)")
    add("--updates", type=whole(1), default=6, metavar="N", help="updates that are (default 6)")
    add("--mean", type=arguments.number(16), default=DEFAULT_MEAN, metavar="TOKENS", help="of a row (default 550)")
    add(
        "--spread",
        type=arguments.number(0, 3),
        default=0.7,
        help="standard deviation of lengths' logarithm (default 0.7)",
    )
    add(
        "--sequence-len",
        type=whole(64),
        default=2048,
        metavar="TOKENS",
        help="of a pack, and of the longest row (default 2048)",
    )
    add(
        "--accumulation",
        type=whole(1),
        default=8,
        help="forward passes of a plain update, of two rows each (default 8)",
    )
    add("--rank", type=whole(1), default=16, help="of the adapter (default 16)")
    add("--dropout", type=arguments.number(0, 0.9), default=0.0, help="of the adapter, in all turns (default 0)")
    add("--seed", type=whole(0), default=1, help="of the rows and their order (default 1)")
    return parser


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    begin_s = time.monotonic()
    if options.out.suffix != ".json":
        return refuse(f"--out {options.out}: must end in .json", EXIT_USAGE)
    if not (options.model / "config.json").is_file():
        return refuse(f"--model {options.model}: holds no config.json", EXIT_USAGE)
    plan, names = _plan(options), _turns(options)
    with workdir(options.workdir) as folder:
        data = _data(replace(plan, data=folder / "rows.jsonl"), options, folder)
        plan = replace(plan, data=folder / "rows.jsonl")
        shape = Shape.read(plan.model)
        speed = _products(plan, shape, folder)
        limit = train_speed_limit.limits(shape, plan.rank, data["context"], speed["flops_per_s"])
        frame = _frame(options, words, plan, {"data": data, "products": speed, "limit": limit})
        turns = _measure(plan, names, options, folder, frame, begin_s + options.budget)
    return _end(options, frame | {"turns": turns})


def _plan(options: argparse.Namespace) -> Plan:
    """Raises ValueError."""
    return Plan(
        options.model.resolve(), Path(), with_variants(options.variant), options.warm_up, options.updates, options.sequence_len,
        options.rank, options.dropout, accumulation=options.accumulation, seed=options.seed,
    )  # fmt: skip


def _turns(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Raises ValueError for one that there is not."""
    known = {PLAIN, *with_variants(options.variant)}
    profiled = [options.profile] if options.profile else []
    if unknown := next((name for name in (*options.turns, *profiled) if name not in known), None):
        raise ValueError(f"there is no variant {unknown!r}; there are {', '.join(sorted(known))}")
    return numbered([*options.turns, *(f"{PROFILE}:{name}" for name in profiled)])


def _data(plan: Plan, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What the rows are, written if they are not there. Raises ScriptError, ValueError."""
    needed = max(
        MIN_ROWS, MARGIN * plan.steps * max(PACKS * plan.sequence_len / options.mean, plan.batch * plan.accumulation)
    )
    wanted = {
        "rows": round(needed), "mean": options.mean, "spread": options.spread, "max": plan.sequence_len, "seed": plan.seed,
    }  # fmt: skip
    asked = plan.as_dict() | {"model": plan.model.name, "rows": wanted}
    asked.pop("variants")
    kept = folder / "plan.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        if found["asked"] != asked:
            raise ValueError(f"{folder} holds turns of other settings: name another --workdir")
        return dict(found["data"])
    argv = [word for name, value in wanted.items() for word in (f"--{name}", str(value))]
    data = _script("train_speed_data", "--model", str(plan.model), "--out", str(plan.data), *argv)
    report.write(kept, report.dump({"asked": asked, "data": data}))
    return data


def _products(plan: Plan, shape: Shape, folder: Path) -> dict[str, Any]:
    """Measured once for a work folder. Raises ScriptError."""
    kept, asked = folder / "products.json", folder / "shapes.json"
    if not kept.exists():
        report.write(asked, report.dump({"tokens": 2 * plan.sequence_len, "layers": shape.layers}))
        report.write(kept, report.dump(_script("train_speed_gemm", str(asked))))
    return dict(json.loads(kept.read_text("utf-8")))


def _script(name: str, *argv: str) -> dict[str, Any]:
    """What it says at last. Raises ScriptError."""
    done = subprocess.run(
        (sys.executable, "-m", f"benchmarks.{name}", *argv), capture_output=True, text=True, timeout=SCRIPT_S, check=False,
        env=train_speed_turns.environment(),
    )  # fmt: skip
    if done.returncode != 0:
        raise ScriptError(f"benchmarks.{name} ended with exit code {done.returncode}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(
    plan: Plan,
    names: Sequence[tuple[str, str]],
    options: argparse.Namespace,
    folder: Path,
    frame: Mapping[str, Any],
    deadline_s: float,
) -> list[dict[str, Any]]:
    """Turns by turn; the result file grows with each."""
    turns: list[dict[str, Any]] = []
    for name, file in names:
        longest_s = max((turn["took_s"] for turn in turns if "took_s" in turn), default=0.0)
        turns.append(_turn(plan, name, folder / file, options.turn_timeout, deadline_s - longest_s))
        report.write(options.out, report.dump({**frame, "turns": turns}))
        _copy_profile(options.out, folder / file)
    return turns


def _turn(plan: Plan, name: str, folder: Path, timeout_s: float, deadline_s: float) -> dict[str, Any]:
    """Measured, or as it was measured before."""
    kept = folder.with_suffix(".json")
    if kept.exists() and "error" not in (found := json.loads(kept.read_text("utf-8"))):
        return dict(found)
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        say(f"{folder.name}: not begun, the budget is spent")
        return {"turn": folder.name, "variant": name.removeprefix(f"{PROFILE}:"), "is_left": True}
    say(f"{folder.name} ...")
    turn: dict[str, Any] = {"turn": folder.name}
    try:
        turn |= train_speed_turns.run(plan, name, _fresh(folder), timeout_s)
        say(f"{folder.name}: {turn['tok_s']:,.0f} tok/s after {turn['took_s']} s")
    except TurnError as exc:
        turn |= {"variant": name.removeprefix(f"{PROFILE}:"), "error": str(exc)}
        say(f"{folder.name}: {exc}")
    train_speed_turns.keep(kept, turn)
    return turn


def _fresh(folder: Path) -> Path:
    """A turn that failed before left its files under another name."""
    if folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}-failed-{number}")).exists():
            number += 1
        folder.rename(aside)
    return folder


def _copy_profile(out: Path, folder: Path) -> None:
    made = folder / "run" / "profile.txt"
    if made.is_file():
        report.write(out.with_suffix(f".{folder.name}.txt"), made.read_bytes())


def _frame(
    options: argparse.Namespace, words: Sequence[str], plan: Plan, measured: Mapping[str, Any]
) -> dict[str, Any]:
    gpu = gpu_memory.gpu()
    return report.document(
        "train-speed", ["python", "-m", "benchmarks.train_speed", *words],
        versions={name: version for name in _VERSIONS if (version := version_of(name))},
        gpu=None if gpu is None else {"name": gpu.name, "driver": gpu.driver, "total_bytes": gpu.total_bytes},
        plan=plan.as_dict() | {"model": options.model.name}, **measured,
    )  # fmt: skip


def _end(options: argparse.Namespace, result: Mapping[str, Any]) -> int:
    table = "\n".join(train_speed_report.markdown(result)) + "\n"
    report.write(options.out, report.dump(dict(result)))
    report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    missing = [turn["turn"] for turn in result["turns"] if "tok_s" not in turn]
    if missing:
        say(f"not measured: {', '.join(missing)}; the same command goes on")
    return EXIT_NEGATIVE if missing else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
