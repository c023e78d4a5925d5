"""The command that goes on with a run, as its user may type it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from finetune.run.folder import RunFolder

VALUED = (
    "out", "processes", "memory_limit", "publish", "url", "model", "rule", "max_items", "force", "canary", "canary_for",
)  # fmt: skip
"""Options that are said again where they were given; a token is not."""
_USUAL = {"processes": 1}


def again_command(args: argparse.Namespace) -> str:
    words = ["forgegate", "train", str(args.recipe), "--resume"]
    words += [word for each in args.set for word in ("--set", each)]
    for name in VALUED:
        value = getattr(args, name)
        if value is not None and value != _USUAL.get(name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if args.candidate_only:
        words.append("--candidate-only")
    if args.on_oom == "retry":
        words += ["--on-oom", "retry", *(["--allow-shorter"] if args.allow_shorter else [])]
    return shlex.join(words)


def again_words(folder: Path, args: argparse.Namespace) -> str:
    """From where it goes on, and how."""
    checkpoint = RunFolder(folder).newest_checkpoint()
    where = f"the checkpoint is of step {checkpoint.step}" if checkpoint else "there is no checkpoint yet"
    return f"{where}; go on with: {again_command(args)}"
