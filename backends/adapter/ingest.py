"""Takes an uploaded adapter into the store: read, lint, bring into the canonical form, convert, put in place. Runs as a child.

python -m backends.adapter.ingest --upload FILE.tar|FOLDER|- --store DIR --base base.json --engines llamacpp[,vllm]

Standard output has one JSON object a line: {"event": "progress", "stage", "text"}, at last one of
    {"event": "stored", "digest", "is_new", "manifest", "notes": [], "seconds": {stage: s}}    exit code 0; `is_new` false: it was there
    {"event": "refused", "problems": [{"rule", "tensor", "message", "fix"}]}      2
    {"event": "failed", "message"}                                               3, the environment cannot do it
With `-` the archive may be left unread to its end when it is refused: whoever writes it must bear a broken pipe.
Killed at any point, it leaves the store without the version or with the whole of it, and what it was making to the next one's sweep.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.adapter import attested
from backends.adapter import manifest as manifests
from backends.adapter.base import Base, BaseUnreadable, read_base
from backends.adapter.canonical import Canonical, write_canonical
from backends.adapter.gguf import GGUF, NotConvertible, write_gguf
from backends.adapter.golden import GoldenError
from backends.adapter.lint import Linted, PatternsTooSlow, lint
from backends.adapter.manifest import FORMAT, BaseRef, Manifest, Uploaded, VersionUnusable
from backends.adapter.problem import Problem, UploadRefused, listed
from backends.adapter.store import Store, Work
from backends.adapter.subject import ENGINES
from backends.adapter.upload import REFERENCE, Limits, Upload, read_archive, read_folder
from backends.artifacts import ArtifactError
from backends.errors import PrepareFailed
from backends.pythons import child_env

FOREIGN_CONVERTER = "backends.llamacpp.lora_convert"
"""Started by its name: it fetches llama.cpp's converter, and needs torch in `--python`."""
MATCHING_S = 20.0
CONVERTING_S = 1800.0
_KEPT_METADATA = 4096
Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for; `tools` and `python` serve architectures that are not converted here."""

    upload: str
    store: Store
    base: Base
    engines: tuple[str, ...]
    limits: Limits
    tools: Path | None
    python: str


@dataclass(slots=True)
class Stages:
    """Tells which one begins, and keeps what each took."""

    say: Say
    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What its publisher should know, beside the rules' warnings."""

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        self.say({"event": "progress", "stage": name, "text": text})
        began = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + self.clock() - began, 4)


def ingest(order: Order, stages: Stages) -> tuple[Manifest, bool]:
    """The version, and whether it is new. Raises UploadRefused, PrepareFailed, VersionUnusable, ArtifactError, OSError."""
    with order.store.working() as work:
        with stages.stage("read", "reading the upload"):
            upload = _read(order, work)
        with stages.stage("lint", "checking it against the rules and the base"):
            linted = lint(upload, order.base, order.engines, bounded)
        made = work.folder / "version"
        made.mkdir()
        with stages.stage("canonical", "folding scales and ranks"):
            written = write_canonical(linted.subject, made)
            manifest = _manifest(linted, upload, written, order.base)
        reference = _reference(upload, manifest, stages)
        if (known := order.store.find(manifest.digest)) is not None:
            return _referenced(order, work, _complete(order, work, known, stages), reference), False
        if "llamacpp" in order.engines:
            with stages.stage("convert", "converting it for llama.cpp"):
                _convert(order, made, manifest, made / GGUF, work)
            manifest = manifest.attached(GGUF, manifests.file_digest(made / GGUF))
        if reference is not None:
            (made / REFERENCE).write_bytes(reference)
            manifest = manifest.attached(REFERENCE, manifests.file_digest(made / REFERENCE))
        with stages.stage("store", "writing it to the disk"):
            (made / manifests.MANIFEST).write_bytes(manifests.encode(manifest))
            is_new = order.store.put(made, manifest.digest)
        return manifest, is_new


def _read(order: Order, work: Work) -> Upload:
    folder = work.folder / "upload"
    folder.mkdir()
    if order.upload == "-":
        return read_archive(sys.stdin.buffer, folder, order.limits)
    path = Path(order.upload)
    if path.is_dir():
        return read_folder(path, folder, order.limits)
    with path.open("rb") as file:
        return read_archive(file, folder, order.limits)


@contextmanager
def bounded() -> Iterator[None]:
    """`re` has no time limit of its own, but lets signals through. Raises PatternsTooSlow. Main thread only."""

    def stop(*_: object) -> None:
        raise PatternsTooSlow

    handler = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, MATCHING_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _manifest(linted: Linted, upload: Upload, written: Canonical, base: Base) -> Manifest:
    config, weights = linted.subject.config, linted.subject.weights
    metadata = {key: text for key, text in sorted(weights.metadata.items()) if len(key) + len(text) < _KEPT_METADATA}
    return Manifest(
        format=FORMAT,
        digest=manifests.version_digest(written.files, base.source_digest, base.template_digest),
        base=BaseRef(base.name, base.source_digest, base.template_digest, base.architecture),
        rank=written.rank,
        targets=written.targets,
        layers=written.layers,
        num_modules=written.num_modules,
        num_parameters=written.num_parameters,
        size_bytes=written.size_bytes,
        files=written.files,
        uploaded=Uploaded(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            use_rslora=bool(config.get("use_rslora")),
            has_patterns=bool(config.get("rank_pattern") or config.get("alpha_pattern")),
            dtypes=sorted({entry.dtype for entry in weights.entries.values()}),
            files=upload.digests,
            sizes=upload.sizes,
            dropped=list(upload.dropped),
            peft_version=str(config.get("peft_version") or ""),
            base_model=str(config.get("base_model_name_or_path") or ""),
            metadata=metadata,
        ),
        warnings=listed(linted.warnings),
    )


def _reference(upload: Upload, manifest: Manifest, stages: Stages) -> bytes | None:
    """The one that came along, where it is this version's."""
    try:
        return attested.adopt(upload.folder, manifest)
    except GoldenError as exc:
        stages.notes.append(f"the reference that came along is left out: {exc}")
        return None


def _referenced(order: Order, work: Work, known: Manifest, reference: bytes | None) -> Manifest:
    """It is there, and keeps the reference that it has."""
    if reference is None or order.store.attachment(known.digest, REFERENCE) is not None:
        return known
    made = work.folder / REFERENCE
    made.write_bytes(reference)
    return order.store.attach(known.digest, REFERENCE, made)


def _complete(order: Order, work: Work, known: Manifest, stages: Stages) -> Manifest:
    """It is there; what an engine kind needs of it may not be."""
    if "llamacpp" not in order.engines or order.store.attachment(known.digest, GGUF) is not None:
        return known
    with stages.stage("convert", "converting it for llama.cpp"):
        _convert(order, order.store.version(known.digest), known, work.folder / GGUF, work)
    with stages.stage("store", "writing it to the disk"):
        return order.store.attach(known.digest, GGUF, work.folder / GGUF)


def _convert(order: Order, version: Path, manifest: Manifest, out: Path, work: Work) -> None:
    if order.base.is_llama:
        try:
            write_gguf(version, order.base, manifest.rank, manifest.digest, out)
        except NotConvertible as exc:
            raise _unservable(str(exc)) from exc
        return
    if order.base.folder is None or order.tools is None:
        lacking = "--tools" if order.tools is None else "the base model's folder (a GGUF alone does not do)"
        raise PrepareFailed(
            f"{order.base.architecture} adapters are converted by llama.cpp's own script, which needs {lacking}"
        )
    argv = [
        sys.executable, "-P", "-m", FOREIGN_CONVERTER, "--adapter", str(version), "--base", str(order.base.folder),
        "--out", str(out), "--tools", str(order.tools), "--python", order.python, "--source-digest", order.base.source_digest,
        "--version-digest", manifest.digest,
    ]  # fmt: skip
    # The child keeps the work folder's lock: should we be killed, nobody removes it under the child's hands.
    done = subprocess.run(
        argv, env=child_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False, timeout=CONVERTING_S,
        pass_fds=(work.lock,),
    )  # fmt: skip
    if done.returncode == 0 and out.is_file():
        return
    message = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode == 2:
        raise _unservable(message)
    raise PrepareFailed(message)


def _unservable(why: str) -> UploadRefused:
    fix = "publish it for vLLM only, or train it on modules that llama.cpp's converter knows"
    return UploadRefused([Problem("conversion", "", f"llama.cpp cannot serve it: {why}", fix)])


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    stages = Stages(_print)
    try:
        engines = tuple(dict.fromkeys(args.engines.split(",")))
        limits = Limits(file_bytes=args.max_bytes, total_bytes=args.max_bytes + (args.max_bytes >> 3))
        base = read_base(args.base)
        order = Order(args.upload, Store(args.store), base, engines, limits, args.tools, args.python)
        manifest, is_new = ingest(order, stages)
    except UploadRefused as exc:
        _print({"event": "refused", "problems": listed(exc.problems)})
        return 2
    except (BaseUnreadable, PrepareFailed, VersionUnusable, ArtifactError, subprocess.TimeoutExpired) as exc:
        _print({"event": "failed", "message": str(exc)})
        return 3
    except OSError as exc:
        _print({"event": "failed", "message": f"{exc.filename or args.store}: {exc.strerror or exc}"})
        return 3
    told = {"digest": manifest.digest, "is_new": is_new, "manifest": manifest.as_json()}
    _print({"event": "stored", **told, "notes": stages.notes, "seconds": stages.seconds})
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Take an uploaded LoRA adapter into the store.")
    parser.add_argument(
        "--upload", required=True, help="a folder, a tar archive (plain or gzipped), or - for one on standard input"
    )
    parser.add_argument("--store", required=True, type=Path, help="the folder of all versions")
    parser.add_argument("--base", required=True, type=Path, help="a JSON file that describes the base model")
    parser.add_argument(
        "--engines", required=True, type=_engines, help=f"engine kinds: {', '.join(ENGINES)}; with commas"
    )
    parser.add_argument(
        "--max-bytes", type=int, default=Limits().file_bytes, help="the largest upload (default %(default)s)"
    )
    parser.add_argument(
        "--tools", type=Path, help="where llama.cpp's converter is kept, for architectures other than Llama"
    )
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and transformers, likewise")
    return parser.parse_args(argv)


def _engines(value: str) -> str:
    if unknown := sorted(set(value.split(",")) - ENGINES.keys()):
        raise argparse.ArgumentTypeError(f"unknown engine kind {unknown[0]!r}; known are {', '.join(ENGINES)}")
    return value


def _print(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told, ensure_ascii=True) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
