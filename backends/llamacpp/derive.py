"""The GGUF of any model folder, derived once: by us for the demo family, by llama.cpp's converter for all others."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.artifacts import ArtifactError, atomic_path, source_digest
from backends.base import Tell
from backends.errors import BackendError, PrepareFailed
from backends.llamacpp.convert import ensure_gguf, is_current
from backends.llamacpp.folder import ModelFolder, read_folder
from backends.llamacpp.header import read_parts
from backends.llamacpp.shape import converted_bytes
from backends.llamacpp.toolkit import SCRIPT, VERSION, ensure_converter, locked
from backends.modelfolder import display_name, weight_files
from backends.plan import size_words
from backends.process import exit_words
from backends.pythons import child_env

FORMAT = 1
"""Raise it when the same source must be derived again."""
STALL_S = 900.0
"""A converter that says nothing for this long is not coming back."""
_CODE = (".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip
_PERCENT = re.compile(r"Writing:\s+(\d+)%")
_CAUSES = (
    (r"BPE pre-tokenizer was not recognized", "llama.cpp does not know how its tokenizer cuts words (its pre-tokenizer)"),
    (r"Can not map tensor '([^']+)'", "llama.cpp does not know its tensor {0}"),
    (r"No module named '([^']+)'", "python module {0} is missing in the converter's environment"),
    (r"No space left on device", "the disk is full"),
    (
        r"requires you to execute the \w+ file|does not appear to have a file named \S+\.py",
        "its tokenizer needs Python code out of the folder, which is not run here",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tools:
    """Where llama.cpp's converter is kept, and which interpreter runs it; empty: none here can."""

    folder: Path
    python: str


def derive(model_dir: Path, cache_dir: Path, tools: Tools, tell: Tell) -> Path:
    """The GGUF's path in `cache_dir`, made at first use. Raises BackendError. Safe for several processes at once."""
    folder = read_folder(model_dir)
    if folder.is_ours:
        return ensure_gguf(model_dir, cache_dir)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tell(f"reading {size_words(folder.num_bytes)} of weights")
        digest = source_digest(model_dir, cache_dir)
        recipe = _recipe(model_dir, digest)
        out = cache_dir / f"{display_name(model_dir)}-{digest.removeprefix('sha256:')[:12]}.gguf"
        with locked(cache_dir / f".{out.name}.lock", tell):
            if not is_current(out, recipe):
                _remove_leftovers(out)
                _require_disk(folder, cache_dir)
                _convert(folder, out, (digest, recipe), tools, tell)
    except ArtifactError as exc:
        raise PrepareFailed(str(exc)) from exc
    except OSError as exc:
        raise PrepareFailed(f"{exc.filename or cache_dir}: {exc.strerror or exc}") from exc
    return out


def _recipe(model_dir: Path, digest: str) -> str:
    """Names all that shapes the GGUF: weights, the small files beside them, and the converter."""
    skipped = {path.name for path in weight_files(model_dir)}
    small = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(model_dir.iterdir())
        if path.suffix in (".json", ".jinja", ".model", ".txt", ".tiktoken")
        and path.name not in skipped
        and path.is_file()
    }
    return hashlib.sha256(json.dumps([FORMAT, VERSION, digest, small], sort_keys=True).encode()).hexdigest()


def _remove_leftovers(out: Path) -> None:
    """Of a conversion that was killed; nobody else is at it."""
    for path in out.parent.glob(f".{out.name}.*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".lock":
            path.unlink(missing_ok=True)


def _require_disk(folder: ModelFolder, cache_dir: Path) -> None:
    needed = sum(converted_bytes(tensor) for tensor in folder.tensors.values())
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        raise PrepareFailed(
            f"its GGUF takes {size_words(needed)}, {cache_dir} has {size_words(free)} free: free some space, or set "
            "FORGEGATE_HOME to another disk"
        )


def _convert(folder: ModelFolder, out: Path, digests: tuple[str, str], tools: Tools, tell: Tell) -> None:
    converter = ensure_converter(tools.folder, tell)
    view = out.with_name(f".{out.name}.view")
    try:
        _make_view(folder.path, view)
        with atomic_path(out) as temporary:
            argv = [
                tools.python, "-P", "-m", "backends.llamacpp.hf_to_gguf", str(converter), str(view), str(temporary),
                display_name(folder.path), *digests,
            ]  # fmt: skip
            tell(f"converting {folder.architecture} to GGUF with llama.cpp's converter")
            _run(argv, {str(view): str(folder.path)}, out.with_name(f"{out.name}.log"), tell)
            _check(temporary, digests[0])
    finally:
        shutil.rmtree(view, ignore_errors=True)


def _check(made: Path, digest: str) -> None:
    try:
        header = read_parts(made)[0]
    except BackendError as exc:
        raise PrepareFailed(f"the converter left no whole GGUF: {exc}") from exc
    if header.source_digest != digest:
        raise PrepareFailed("the converter's file does not carry the digest of its source")


def _make_view(model_dir: Path, view: Path) -> None:
    """The folder without code and pickles: the converter asks transformers to run a model's own code where it finds some."""
    for path in [model_dir, *model_dir.rglob("*")]:
        target = view / path.relative_to(model_dir)
        if any(part.startswith(".") for part in path.relative_to(model_dir).parts):
            continue
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif path.suffix.lower() not in _CODE:
            target.symlink_to(path.resolve())


def _run(argv: list[str], names: Mapping[str, str], log: Path, tell: Tell) -> None:
    """Until the converter is done; all that it said stays in `log` when it fails, with these names put for others."""
    env = {**child_env(), **_OFFLINE}
    child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines: deque[str] = deque(maxlen=5000)
    num_tenths = 0
    try:
        for line in _lines(child):
            for ours, theirs in names.items():
                line = line.replace(ours, theirs)
            lines.append(line)
            tenth = int(match[1]) // 10 if (match := _PERCENT.search(line)) else num_tenths
            if tenth > num_tenths:
                num_tenths = tenth
                tell(f"converting: {10 * tenth} % written")
        code = child.wait(timeout=30)
    except (TimeoutError, subprocess.TimeoutExpired) as exc:
        raise PrepareFailed(f"llama.cpp's converter said nothing for {STALL_S:g} s and was ended") from exc
    finally:
        child.kill()
        child.wait()
    if code != 0:
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        raise PrepareFailed(f"llama.cpp's {SCRIPT} failed: {_cause(lines, code)}; all that it said is in {log}")
    log.unlink(missing_ok=True)


def _lines(child: subprocess.Popen[bytes], clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """What it prints, split at line ends and at carriage returns (progress bars). Raises TimeoutError after a long silence."""
    assert child.stdout is not None
    descriptor, partial = child.stdout.fileno(), b""
    with child.stdout:
        last = clock()
        while True:
            if not select.select([descriptor], [], [], 1.0)[0]:
                if clock() - last > STALL_S:
                    raise TimeoutError
                continue
            last = clock()
            data = os.read(descriptor, 65536)
            if not data:
                break
            *whole, partial = re.split(rb"[\r\n]", partial + data)
            yield from (line.decode("utf-8", "replace").rstrip() for line in whole if line.strip())
    if partial.strip():
        yield partial.decode("utf-8", "replace").rstrip()


def _cause(lines: deque[str], code: int) -> str:
    text = "\n".join(lines)
    for pattern, words in _CAUSES:
        if match := re.search(pattern, text):
            return words.format(*(group or "" for group in match.groups()))
    if code == -9:
        return "it was killed: out of memory?"
    told = [line for line in lines if re.match(r"(ERROR[ :]|[A-Za-z_.]*(Error|Exception)\b)", line)]
    last = (told or list(lines) or [exit_words(code)])[-1][:300]
    # `AssertionError` alone says nothing; the line that failed says what it wanted.
    places = re.findall(r'File "[^"]*/(conversion/\w+\.py)", line (\d+), in \w+\n +(.+)', text)
    return f"{last} ({':'.join(places[-1][:2])}: {places[-1][2]})" if places and told else last
