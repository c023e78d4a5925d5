"""What needs the engine's environment: one piece of work for each start, told and answered in JSON.

python -m backends.llamacpp.quantize.work TASK     TASK: a JSON object, `do` names the work

prints one JSON object a line: {"event": "progress", "text", "done", "total"} while it goes on, at last {"event": "done", ...} or
{"event": "refused", "message"} with exit code 2 (what was given) or 3 (what is here).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.errors import BackendError
from backends.llamacpp.binding.errors import BindingError, QuantizeError
from backends.llamacpp.binding.quantize import quantize
from backends.llamacpp.binding.vocabulary import Vocabulary
from backends.llamacpp.header import read_header
from backends.llamacpp.purpose import ENCODERS
from backends.llamacpp.quantize.calibrate import calibrate
from backends.llamacpp.quantize.imatrix import Imatrix, read_imatrix
from backends.llamacpp.quantize.measure import LENGTH, foretold_windows, opened, speeds, window_loss, windows_of
from backends.llamacpp.quantize.text import TextTooShort, read_text
from backends.llamacpp.threads import num_physical_cores
from backends.plan import size_words

Task = Mapping[str, Any]
_STREAM_FAILED = "iostream error"
"""What the C++ library says when a file is not written to its end."""


class OutUnwritable(BackendError):
    """The disk took the beginning of a file, and not its end."""

    exit_code = 3


def main(argv: list[str]) -> int:
    task = json.loads(argv[0])
    try:
        _say("done", **WORK[task["do"]](task))
    except (BackendError, BindingError) as exc:
        _say("refused", message=str(exc))
        return getattr(exc, "exit_code", 3)
    return 0


def _predict(task: Task) -> dict[str, Any]:
    """For each file type what the quantiser says in a dry run."""
    found: dict[str, list[str]] = {}
    for file_type in task["file_types"]:
        lines = found[str(file_type)] = []
        quantize(
            Path(task["source"]), Path("-"), file_type, tell=lines.append, num_threads=1, is_dry_run=True,
            is_requantizing=task["is_requantizing"],
        )  # fmt: skip
    return {"lines": found}


def _quantize(task: Task) -> dict[str, Any]:
    """One file of one level."""
    matrix = read_imatrix(Path(task["imatrix"])) if task["imatrix"] else Imatrix({})
    metadata: dict[str, str | int] = dict(task["metadata"])
    if task["imatrix"]:
        metadata |= {
            "quantize.imatrix.file": Path(task["imatrix"]).name,
            "quantize.imatrix.dataset": matrix.dataset,
            "quantize.imatrix.entries_count": len(matrix.means),
            "quantize.imatrix.chunks_count": matrix.num_chunks,
        }
    out = Path(task["out"])
    try:
        quantize(
            Path(task["source"]), out, task["file_type"], tell=_tell_tensor(task["level"]),
            num_threads=num_physical_cores(), importance=matrix.means, metadata=metadata, is_requantizing=task["is_requantizing"],
        )  # fmt: skip
    except QuantizeError as exc:
        if _STREAM_FAILED not in str(exc):
            raise
        raise OutUnwritable(
            f"{task['level']}: {out.parent} cannot be written to the end, it has {size_words(shutil.disk_usage(out.parent).free)} free: "
            "free some space, or name another disk with --out"
        ) from exc
    return {}


def _tell_tensor(level: str) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if line.startswith("[") and "/" in line:
            done, _, rest = line[1:].partition("/")
            total = rest.partition("]")[0]
            if done.strip().isdigit() and total.strip().isdigit():
                _progress(level, int(done), int(total))

    return tell


def _calibrate(task: Task) -> dict[str, Any]:
    num_tokens = calibrate(
        Path(task["source"]), Path(task["text"]), Path(task["out"]), most_windows=task["most_windows"],
        num_threads=num_physical_cores(), tell=lambda done, total: _progress("importance matrix", done, total),
    )  # fmt: skip
    return {"num_tokens": num_tokens}


def _check_imatrix(task: Task) -> dict[str, Any]:
    matrix = read_imatrix(Path(task["imatrix"]))
    return {"sizes": {name: row.size for name, row in matrix.means.items()}, "num_chunks": matrix.num_chunks}


def _foresee(task: Task) -> dict[str, Any]:
    """Whether the model generates, without which nothing is measured, and the windows that the text has. Reads no weights."""
    source = Path(task["source"])
    head = read_header(source)
    longest, count = min(LENGTH, head.context_length or LENGTH), 0
    vocabulary = Vocabulary(source)
    try:
        can_generate = vocabulary.can_generate and head.architecture not in ENCODERS
        if task["text"] and can_generate:
            count = len(foretold_windows(vocabulary, longest, read_text(Path(task["text"])), task["most_windows"]))
            _require_windows(task["text"], count, longest)
    finally:
        vocabulary.close()
    return {"can_generate": can_generate, "num_windows": count}


def _require_windows(text: str, count: int, length: int) -> None:
    if not count:
        raise TextTooShort(f"{text}: shorter than one window of {length} tokens; give a longer text")


def _measure(task: Task) -> dict[str, Any]:
    """Losses of each file's windows, and its speeds; lists in the order of the files."""
    paths, num_threads = [Path(path) for path in task["files"]], num_physical_cores()
    losses = _losses(paths, task["text"], task["most_windows"], num_threads) if task["text"] else [[] for _ in paths]
    rates = speeds(paths, num_threads, lambda name, done, total: _progress(f"speed of {name}", done, total))
    return {
        "losses": losses,
        "prefill": [[each.prefill for each in rounds] for rounds in rates],
        "decode": [[each.decode for each in rounds] for rounds in rates],
    }


def _losses(paths: list[Path], text: str, most: int, num_threads: int) -> list[list[float]]:
    words = read_text(Path(text))
    found = []
    for path in paths:
        with opened(path, num_threads) as context:
            windows = windows_of(context, words, most)
            _require_windows(text, len(windows), context.max_length)
            losses = []
            for index, window in enumerate(windows):
                _progress(f"perplexity of {path.name}", index, len(windows))
                losses.append(window_loss(context, window))
            found.append(losses)
    return found


def _progress(text: str, done: int, total: int) -> None:
    _say("progress", text=text, done=done, total=total)


def _say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


WORK: dict[str, Callable[[Task], dict[str, Any]]] = {
    "predict": _predict, "quantize": _quantize, "calibrate": _calibrate, "check-imatrix": _check_imatrix, "foresee": _foresee,
    "measure": _measure,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
