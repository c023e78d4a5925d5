"""Answers that evaluations of one gateway share: what is live is asked once, whichever candidate is held against it, and a candidate that
went live has been asked already.

A version, a question and how it is asked decide an answer, and are its key in the file (`finetune.evaluation.cache`). So does what
computes it: the same version answers otherwise on an engine of another quantisation. Each file therefore is of one suite and of engines
as they run; where one of them starts anew, another file begins.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends.admin_client import AdminClient
from finetune.evaluation.suite import Suite
from finetune.recipe.folders import home_of
from finetune.running import Gateway

FOLDER = "answers"
"""Of $FORGEGATE_HOME."""
MOST_FILES = 4
"""The newest; some 4 MB for each version that was asked 500 items of each skill."""
_LAUNCH = ("id", "model", "kind", "description", "url", "pid")


def shared_answers(
    client: AdminClient, gateway: Gateway, model: str, suite: Suite, env: Mapping[str, str] = os.environ
) -> Path | None:
    """The file for versions of `model`; None where nobody can say that it is the same engine still (a remote one), or where nothing can be
    kept. Raises AdminError."""
    launches = [{name: engine.get(name) for name in _LAUNCH} for engine in client.engines() if engine["model"] == model]
    if not launches or not all(launch["pid"] for launch in launches):
        return None
    folder = home_of(env) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    path = folder / f"{_digest(suite, gateway, launches)}.jsonl"
    _sweep(folder, path)
    return path


def _digest(suite: Suite, gateway: Gateway, launches: Sequence[Mapping[str, Any]]) -> str:
    told = [suite.digest, gateway.admin_url, sorted(json.dumps(launch, sort_keys=True) for launch in launches)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _sweep(folder: Path, own: Path) -> None:
    """What is older than the newest few."""
    with suppress(OSError):
        others = sorted(
            (path for path in folder.glob("*.jsonl") if path != own), key=lambda path: -path.stat().st_mtime
        )
        for path in others[MOST_FILES - 1 :]:
            path.unlink(missing_ok=True)
