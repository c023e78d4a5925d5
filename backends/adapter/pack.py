"""An adapter's folder as a tar archive that is made while it is sent: whatever its size, a piece of it is in memory.

Standard library only: whoever publishes needs nothing else.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backends.adapter.upload import AS_SAFETENSORS, CONFIG, WEIGHTS
from backends.errors import BackendError

CHUNK_BYTES = 256 * 1024
_BLOCK = tarfile.BLOCKSIZE
_LEFT_HERE = ("optimizer.", "scheduler.", "scaler.", "rng_state", "training_args.", "adapter.gguf")
"""What trainers and forgegate leave beside an adapter: nobody needs it there, and some of it is larger than the adapter."""


class NotAnAdapter(BackendError):
    """A folder that need not be sent: it holds no adapter."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Pack:
    """The archive: its exact size, and its bytes, once."""

    files: tuple[tuple[Path, int], ...]
    """With their sizes."""

    @property
    def num_bytes(self) -> int:
        return sum(len(_head(path, size)) + size + _padding(size) for path, size in self.files) + 2 * _BLOCK

    def chunks(self) -> Iterator[bytes]:
        """Raises NotAnAdapter when a file changes its size meanwhile or cannot be read any more."""
        for path, size in self.files:
            yield _head(path, size)
            yield from _content(path, size)
            yield bytes(_padding(size))
        yield bytes(2 * _BLOCK)


def pack(folder: Path) -> Pack:
    """Of what lies in `folder` itself. Raises NotAnAdapter saying what it is instead, as far as names tell."""
    try:
        if not folder.is_dir():
            raise NotAnAdapter(_no_folder(folder))
        found = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        if missing := [name for name in (CONFIG, WEIGHTS) if name not in found]:
            raise NotAnAdapter(_lacking(folder, missing, set(found)))
        files = tuple((path, path.stat().st_size) for name, path in found.items() if not name.startswith(_LEFT_HERE))
    except OSError as exc:
        raise NotAnAdapter(f"{exc.filename or folder}: {exc.strerror or exc}") from exc
    return Pack(files)


def _no_folder(folder: Path) -> str:
    if folder.exists():
        return f"{folder} is a file: name the folder that holds {CONFIG} and {WEIGHTS}"
    return f"{folder}: no such folder"


def _lacking(folder: Path, missing: list[str], found: set[str]) -> str:
    said = f"{folder} is no adapter: it has no {' and no '.join(missing)}"
    below = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if CONFIG in missing and below:
        return f"{said}; there is one in {', '.join(f'{folder / name}' for name in below[:3])}"
    if CONFIG in missing and "config.json" in found:
        return f"{said}; it is a whole model, which `forgegate serve --model {folder}` serves"
    if WEIGHTS in missing and "adapter_model.bin" in found:
        return f"{said}; its weights are a pickle, which can run code when it is read: {AS_SAFETENSORS}"
    return f"{said}; name the folder that save_pretrained wrote"


def _head(path: Path, size: int) -> bytes:
    info = tarfile.TarInfo(path.name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> int:
    return -size % _BLOCK


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    try:
        with path.open("rb") as file:
            while data := file.read(min(CHUNK_BYTES, left)):
                left -= len(data)
                yield data
    except OSError as exc:
        raise NotAnAdapter(f"{path}: {exc.strerror or exc}") from exc
    if left:
        raise NotAnAdapter(f"{path} became shorter while it was sent")
