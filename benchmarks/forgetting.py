"""What fine-tuning makes a model forget, and what prevents it: `python -m benchmarks.forgetting --workdir DIR --out FILE.json`.

The bundled demo model learns to read support tickets, by `forgegate train` on its shipped recipe with what each setting changes of it.
Before and after, every skill that it was made with is asked the same held-out items, and so are held-out tickets, greedily and in the
same process for all. The verdict is the gate's, with its bounds and its looks: more items are asked of what is undecided. Each setting is
kept in the work folder, trainings apart from scores: called again with the same one, the benchmark goes on with what is left, or failed.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import arguments, forgetting_report, report
from benchmarks.adapter_program import workdir
from benchmarks.arguments import Parser
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse
from benchmarks.environment import environment as machine_of
from benchmarks.environment import version_of
from benchmarks.forgetting_settings import GENERAL, SETTINGS
from benchmarks.train_speed_turns import environment
from benchmarks.vllm_gateway import say

RECIPE = Path(__file__).resolve().parents[1] / "finetune" / "recipes" / "demo-cpu.yaml"
NUM_GENERAL, EXCHANGES = 2000, 3
"""Chats that are replayed, and how long each is at least."""
TIMEOUT_S = 3600.0
"""Of a training, and of a scoring."""
_VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes")
_EXAMPLE = """examples:
  python -m benchmarks.forgetting --workdir work --out benchmarks/results/forgetting.json
  python -m benchmarks.forgetting --workdir work --out some.json --settings shipped,replay-20 --items 200

exit codes: 0 every setting is measured, 1 one failed or is left, 2 bad usage, 3 the data could not be written"""


class StepError(RuntimeError):
    """A program did not end well; the message holds its last lines."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(
        lambda: _run(_parser().parse_args(words), words), {ValueError: EXIT_USAGE, StepError: EXIT_ENVIRONMENT}
    )


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.forgetting", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--workdir", type=Path, metavar="DIR", help="rows and results; the same for every call")
    add("--out", type=Path, required=True, metavar="FILE.json", help="result; the table goes to FILE.md")
    add("--items", type=arguments.whole(1), default=500, metavar="N", help="of each skill at first (default 500)")
    add("--settings", type=arguments.names, default=tuple(SETTINGS), metavar="A,B", help="in this order (default: all)")
    add(
        "--budget",
        type=arguments.number(1),
        default=86400.0,
        metavar="S",
        help="no setting begins after it (default: a day)",
    )
    return parser


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    deadline_s = time.monotonic() + options.budget
    if options.out.suffix != ".json":
        return refuse(f"--out {options.out}: must end in .json", EXIT_USAGE)
    if unknown := next((name for name in options.settings if name not in SETTINGS), None):
        raise ValueError(f"there is no setting {unknown!r}; there are {', '.join(SETTINGS)}")
    with workdir(options.workdir) as folder:
        base = _base(folder, options.items)
        frame = _frame(words, base)
        found: list[dict[str, Any]] = []
        for name in options.settings:
            found.append(_setting(folder, name, options.items, deadline_s))
            report.write(options.out, report.dump({**frame, "settings": found}))
    result = {**frame, "settings": found}
    table = "\n".join(forgetting_report.markdown(result)) + "\n"
    report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    return EXIT_DONE if all("judged" in each for each in found) else EXIT_NEGATIVE


def _base(folder: Path, num_items: int) -> dict[str, Any]:
    """The rows, and what the base knows of at least so many items, made once for a work folder. Raises StepError, ValueError."""
    tickets, before = folder / "tickets", folder / "before.json"
    if not before.exists():
        _call(folder / "data.txt", "finetune.demo_tickets", "--out", tickets)
        general = ("--out", folder / "general.jsonl", "--rows", NUM_GENERAL, "--exchanges", EXCHANGES, "--even")
        _call(folder / "general.txt", "finetune.demo_general", *general)
        asked = ("--tickets", tickets / "held-out.jsonl", "--items", num_items)
        _call(folder / "before.txt", "finetune.demo_skills", "--out", before, *asked)
    found: dict[str, Any] = json.loads(before.read_bytes())
    if found["num_items"] < num_items:
        raise ValueError(f"{folder} holds results on {found['num_items']} items of each skill: name another --workdir")
    num_items = found["num_items"]
    return {name: _mean(each["scores"][:num_items]) for name, each in found["scores"].items()}


def _setting(folder: Path, name: str, num_items: int, deadline_s: float) -> dict[str, Any]:
    """Trained and scored, each as it was before where it was."""
    run = folder / "".join(char if char.isalnum() else "-" for char in name)
    told = {"setting": name, "changes": dict(SETTINGS[name])}
    if kept := _kept(run.with_suffix(".json"), told):
        return kept
    if time.monotonic() > deadline_s:
        return {**told, "is_left": True}
    say(f"{name} ...")
    try:
        trained = _kept(run.with_suffix(".trained.json"), told) or {**told, **_train(folder, run, SETTINGS[name])}
        report.write(run.with_suffix(".trained.json"), report.dump(trained))
        found = {**trained, **_score(folder, run, num_items)}
    except StepError as exc:
        say(f"{name}: {exc}")
        return {**told, "error": str(exc)}
    report.write(run.with_suffix(".json"), report.dump(found))
    return found


def _kept(path: Path, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found before of the same setting."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found if found["changes"] == told["changes"] else None


def _train(folder: Path, run: Path, changes: Mapping[str, str]) -> dict[str, Any]:
    """Raises StepError."""
    shutil.rmtree(run, ignore_errors=True)
    rows = {
        "datasets.0.path": folder / "tickets" / "train.jsonl",
        "test_datasets.0.path": folder / "tickets" / "eval.jsonl",
        **{key: value.replace(GENERAL, str(folder / "general.jsonl")) for key, value in changes.items()},
    }
    given = [word for key, value in rows.items() for word in ("--set", f"{key}={value}")]
    began_s = time.monotonic()
    lines = _call(run.with_suffix(".log"), "finetune.train", RECIPE, "--json", "--out", run, *given)
    events = [json.loads(line) for line in lines if line.startswith("{")]
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    (done,) = (event for event in events if event["event"] == "done")
    penalties = [event["penalty"] for event in events if event["event"] == "step" and "penalty" in event]
    return {
        "num_steps": done["num_steps"], "loss": done["loss"], "eval_loss": done["eval_loss"], "seconds": done["seconds"],
        "wall_s": round(time.monotonic() - began_s, 1), "penalty": penalties[-1] if penalties else None,
        "machine": _machine(),
    }  # fmt: skip


def _machine() -> dict[str, Any]:
    """A work folder may have settings of several."""
    found = machine_of()
    versions = {name: version for name in _VERSIONS if (version := version_of(name))}
    return {**{name: found[name] for name in ("cpu", "cores", "date")}, "versions": versions}


def _score(folder: Path, run: Path, num_items: int) -> dict[str, Any]:
    """Raises StepError."""
    after = run.with_suffix(".scores.json")
    began_s = time.monotonic()
    _call(
        run.with_suffix(".txt"), "finetune.demo_skills", "--out", after, "--before", folder / "before.json", "--adapter", run / "adapter",
        "--tickets", folder / "tickets" / "held-out.jsonl", "--items", num_items,
    )  # fmt: skip
    found = json.loads(after.read_bytes())
    scores = {name: _mean(each["scores"]) for name, each in found["scores"].items()}
    wall_s = round(time.monotonic() - began_s, 1)
    return {"num_items": num_items, "scoring_s": wall_s, "scores": scores, "judged": found["judged"]}


def _call(log: Path, module: str, *argv: object) -> list[str]:
    """The lines of what it says. Raises StepError."""
    try:
        done = subprocess.run(
            (sys.executable, "-m", module, *map(str, argv)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=TIMEOUT_S, check=False, env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise StepError(f"{module} did not end within {TIMEOUT_S:g} s, and was killed") from exc
    log.write_text(done.stdout, "utf-8")
    if done.returncode != 0:
        raise StepError(f"{module} ended with exit code {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout.splitlines()


def _mean(scores: Sequence[float]) -> float:
    return round(sum(scores) / len(scores), 6)


def _frame(words: Sequence[str], base: Mapping[str, float]) -> dict[str, Any]:
    return report.document(
        "forgetting", ["python", "-m", "benchmarks.forgetting", *words],
        recipe=RECIPE.name, general={"rows": NUM_GENERAL, "exchanges": EXCHANGES, "even": True}, base=dict(base),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
