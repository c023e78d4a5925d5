"""What was measured of speculation here, kept for the next starts: one JSON file. Its one writer is the control process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from backends.atomicfile import atomic_path
from backends.digests import file_digest
from backends.sourcedigests import source_digest
from backends.vllm.options import Options
from backends.vllm.speculation import Measurement, Setting, adjust, choose

FILE = "speculation.json"
SEEN_S = 86_400.0
"""What clients' texts accept is forgotten after a day: an engine that does not speculate for it never sees that it changed."""
_OF_NO_CONCERN = frozenset(
    {"chat_template", "tool_call_parser", "reasoning_parser", "trust_remote_code", "seed", "sleep_mode", "load_format"}
)
"""Options that change nothing in how long a step takes, nor in what is accepted."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a measurement holds for: another model, version or machine has other costs."""

    model: str
    """Digest of its weights."""
    draft: str
    """Digest of the draft's weights; its name where it is a hub's; empty where there is none."""
    version: str
    """Of vLLM, and what it runs on."""
    options: str
    """Those that matter, as JSON."""
    machine: str

    @property
    def key(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients' texts accept, since the measurement."""

    depth: int
    tokens_per_step: float
    at: float = 0.0
    """When, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Record:
    subject: Subject
    measured: Measurement
    at: str
    """Time of the measurement, ISO 8601."""
    seen: Seen | None = None

    def as_of(self, now: float) -> Record:
        """Without what was seen too long ago."""
        return replace(self, seen=None) if self.seen is not None and now - self.seen.at > SEEN_S else self

    @property
    def setting(self) -> Setting:
        """What an engine should start with."""
        if self.seen is None or self.seen.depth not in self.measured.on:
            return choose(self.measured)
        return choose(adjust(self.measured, self.seen.depth, self.seen.tokens_per_step))


class Memory:
    """The file, read anew at each question: engines start rarely."""

    def __init__(self, models_dir: Path) -> None:
        self._path = models_dir / FILE

    def find(self, subject: Subject) -> Record | None:
        return self._read().get(subject.key)

    def note(self, record: Record) -> None:
        """Raises OSError."""
        records = {**self._read(), record.subject.key: record}
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=1))

    def _read(self) -> dict[str, Record]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Record])
        except (OSError, msgspec.DecodeError):
            return {}  # absent, damaged or of another version: measured anew when somebody asks


def relevant_options(options: Options) -> str:
    """Those that a measurement depends on, as JSON; not which depths are chosen, which is what it is for."""
    given: dict[str, Any] = {name: value for name, value in asdict(options).items() if name not in _OF_NO_CONCERN}
    speculative = given["speculative"]
    if speculative is not None:
        given["speculative"] = {
            name: value
            for name, value in speculative.items()
            if name not in ("schedule", "num_speculative_tokens_per_batch_size")
        }
    return msgspec.json.encode(given, order="deterministic").decode()


def draft_identity(draft: str, models_dir: Path) -> str:
    """A digest where the draft is here, else its name. Blocks while it reads. Raises ModelUnusable."""
    path = Path(draft).expanduser()
    if draft and path.is_dir():
        return source_digest(path, models_dir)
    return file_digest(path, models_dir / "file-digests.json") if draft and path.is_file() else draft


def machine(proc: Path = Path("/proc"), environ: Mapping[str, str] = os.environ) -> str:
    """Processor, cores that we may use, GPUs: what decides how long a step takes."""
    parts = [f"{_cpu(proc)} x {len(os.sched_getaffinity(0))}", *_gpus(proc)]
    if visible := environ.get("CUDA_VISIBLE_DEVICES"):
        parts.append(f"of which {visible}")
    return ", ".join(parts)


def _cpu(proc: Path) -> str:
    return _value(proc / "cpuinfo", "model name") or "cpu"


def _gpus(proc: Path) -> list[str]:
    files = sorted((proc / "driver" / "nvidia" / "gpus").glob("*/information"))
    return [_value(file, "Model") or "gpu" for file in files]


def _value(file: Path, name: str) -> str:
    """Of the first line `name : value`; empty where there is none."""
    with suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""
