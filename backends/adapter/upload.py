"""An upload, as a folder or a tar archive: the files that make an adapter are copied, all else is dropped or refused.

Nothing of it reaches the disk under a name that it chose itself. Standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from backends.adapter.problem import Problem, UploadRefused

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
REFERENCE = "golden.safetensors"
"""What the trainer computed for whoever serves the adapter (`backends.adapter.attested`)."""
_KEPT = (CONFIG, WEIGHTS, MANIFEST, REFERENCE)
_OURS = ("adapter.gguf",)
"""Of a stored version that is published elsewhere: made again from the weights."""
_TRAINERS = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")
"""What trainers leave beside an adapter, and nobody needs to serve it."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WEIGHTS = (".safetensors", ".gguf", ".npz", ".npy", ".h5", ".msgpack", ".onnx")
_CHUNK_BYTES = 1 << 20
_TAR_BLOCK = 512
_MAX_EXTENDED_BYTES = 1 << 20
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X")

AS_SAFETENSORS = (
    "save the adapter as safetensors: python -c \"from peft import PeftModel; from transformers import AutoModelForCausalLM as M; "
    "PeftModel.from_pretrained(M.from_pretrained('BASE'), 'ADAPTER').save_pretrained('NEW-FOLDER')\""
)  # fmt: skip
_REPACK = "pack the folder again: tar -cf adapter.tar -C FOLDER adapter_config.json adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Limits:
    """`total_bytes` counts an archive's content as it is unpacked, dropped files and its own headers too."""

    file_bytes: int = 8 << 30
    total_bytes: int = 9 << 30
    json_bytes: int = 4 << 20
    reference_bytes: int = 64 << 20
    num_files: int = 1000

    def of(self, name: str) -> int:
        """Of a file that is taken."""
        return {WEIGHTS: self.file_bytes, REFERENCE: self.reference_bytes}.get(name, self.json_bytes)


@dataclass(frozen=True, slots=True)
class Upload:
    """What was taken, in a folder of ours under the names above."""

    folder: Path
    digests: dict[str, str]
    """`sha256:<hex>` of the files as they were uploaded, by name."""
    sizes: dict[str, int]
    dropped: tuple[str, ...]
    """Names of files that were left out."""


@dataclass(slots=True)
class _Taking:
    """Collects what is taken and what is wrong; `room` is what may still come."""

    folder: Path
    limits: Limits
    digests: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    num_files: int = 0

    def refuse(self, rule: str, name: str, message: str, fix: str) -> None:
        self.problems.append(Problem(rule, name, message, fix))

    def count(self) -> None:
        """One more of whatever kind."""
        self.num_files += 1
        if self.num_files > self.limits.num_files:
            words = f"the upload has more than {self.limits.num_files:,} files"
            raise UploadRefused([Problem("size", "", words, "upload the adapter's own folder")])

    def offer(self, name: str, num_bytes: int, source: BinaryIO) -> None:
        """One regular file, by its checked name. Raises EOFError if `source` ends early."""
        bare = PurePosixPath(name).name
        if bare in _KEPT:
            self._take(bare, name, num_bytes, source)
        elif not self._is_refused(bare, name):
            self.dropped.append(name)

    def _take(self, bare: str, name: str, num_bytes: int, source: BinaryIO) -> None:
        limit = self.limits.of(bare)
        if bare in self.digests:
            there = f"{bare} is in the upload twice: {self.places[bare]} and {name}"
            self.refuse("duplicate-file", name, there, "upload one adapter's folder")
        elif num_bytes > limit:
            fix = "upload a smaller adapter, or raise the limit on uploads"
            self.refuse("size", name, f"{name} has {num_bytes:,} bytes; {limit:,} are allowed", fix)
        else:
            self.digests[bare] = _copy(source, self.folder / bare, num_bytes)
            self.sizes[bare], self.places[bare] = num_bytes, name

    def _is_refused(self, bare: str, name: str) -> bool:
        if bare in _OURS or bare in _TRAINERS or bare.startswith("rng_state"):
            return False
        if bare.endswith(_PICKLES):
            self.refuse("pickle", name, f"{name} is a pickle, which can run code when it is read", AS_SAFETENSORS)
        elif bare.endswith(_WEIGHTS):
            self.refuse("extra-weights", name, f"{name} holds more weights than {WEIGHTS}", "leave it out")
        else:
            return False
        return True

    def result(self) -> Upload:
        """Raises UploadRefused."""
        missing = [name for name in (CONFIG, WEIGHTS) if name not in self.digests]
        refused = {PurePosixPath(problem.tensor).name for problem in self.problems}
        for name in missing:
            if name not in refused and not (name == WEIGHTS and any(p.rule == "pickle" for p in self.problems)):
                self.refuse("missing-file", name, f"the upload has no {name}", "upload what save_pretrained wrote")
        folders = {str(PurePosixPath(self.places[name]).parent) for name in (CONFIG, WEIGHTS) if name in self.places}
        if len(folders) > 1:
            self.refuse("missing-file", CONFIG, f"{CONFIG} and {WEIGHTS} lie in different folders", _REPACK)
        if self.problems:
            raise UploadRefused(self.problems)
        return Upload(self.folder, self.digests, self.sizes, tuple(sorted(self.dropped)))


def read_folder(source: Path, folder: Path, limits: Limits) -> Upload:
    """Copies an adapter's files from the folder `source` into the empty `folder`. Raises UploadRefused; OSError."""
    taking = _Taking(folder, limits)
    total = 0
    for item in sorted(os.scandir(source), key=lambda item: item.name):
        taking.count()
        if item.is_dir(follow_symlinks=False):
            taking.dropped.append(f"{ascii(item.name)[1:-1]}/")
            continue
        with _opened_file(Path(item.path), taking) as opened:
            if opened is not None:
                num_bytes = os.fstat(opened.fileno()).st_size
                total += num_bytes if item.name in _KEPT else 0
                _require_total(total, limits)
                taking.offer(ascii(item.name)[1:-1], num_bytes, opened)
    return taking.result()


@contextmanager
def _opened_file(path: Path, taking: _Taking) -> Iterator[BinaryIO | None]:
    """None, with a problem told, for a link, a device or a pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if path.is_symlink():
            fix = "copy the files themselves: cp -rL FOLDER COPY"
            taking.refuse("link", path.name, f"{path.name} is a link", fix)
        else:
            taking.refuse("missing-file", path.name, f"{path.name}: {exc.strerror or exc}", "make it readable")
        yield None
        return
    with os.fdopen(fd, "rb") as opened:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            yield opened
        else:
            taking.refuse("special-file", path.name, f"{path.name} is a device or a pipe", "leave it out")
            yield None


def read_archive(source: BinaryIO, folder: Path, limits: Limits) -> Upload:
    """As `read_folder`, of a tar archive, plain or gzipped, read once from its beginning to its end."""
    taking = _Taking(folder, limits)
    try:
        stream = _Counted(_unzipped(source), limits)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as archive:  # type: ignore[call-overload]
            for member in archive:
                taking.count()
                _take_member(archive, member, taking)
        while stream.read(_CHUNK_BYTES):  # a checksum at the end of what is gzipped covers all of it
            pass
    except (_Damaged, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        taking.refuse("archive", "", f"the archive is cut off or damaged ({exc})", _REPACK)
        raise UploadRefused(taking.problems) from exc
    return taking.result()


def _take_member(archive: tarfile.TarFile, member: tarfile.TarInfo, taking: _Taking) -> None:
    name = member.name.removeprefix("./")
    shown = ascii(member.name)[1:-1]
    if member.size < 0:
        raise _Damaged(f"{shown} has a size of {member.size}")
    if member.name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
        taking.refuse("path", shown, f"{shown} leads out of the archive", _REPACK)
    elif member.isdir():
        return
    elif member.issym() or member.islnk():
        taking.refuse("link", shown, f"{shown} is a link to {member.linkname!r}", "pack the files themselves: tar -h")
    elif not member.isreg() or member.issparse():
        taking.refuse("special-file", shown, f"{shown} is no plain file", "leave it out")
    elif (source := archive.extractfile(member)) is not None:
        taking.offer(shown.removeprefix("./"), member.size, source)  # type: ignore[arg-type]


class _Damaged(Exception):
    """An archive that tarfile would read as if nothing had happened."""


class _StrictInfo(tarfile.TarInfo):
    """tarfile ends quietly at a broken header and at a missing end, and reads extended headers of any size into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        if len(buf) != _TAR_BLOCK:
            raise _Damaged("it ends without an end mark")
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as exc:
            if any(buf):
                raise _Damaged(str(exc)) from exc
            raise  # zeros: the end mark
        if info.type in _EXTENDED and info.size > _MAX_EXTENDED_BYTES:
            raise _Damaged(f"an extended header of {info.size:,} bytes")
        return info


class _Counted:
    """Reads on until the limit."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._num_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._num_bytes += len(data)
        _require_total(self._num_bytes, self._limits)
        return data


def _require_total(num_bytes: int, limits: Limits) -> None:
    if num_bytes > limits.total_bytes:
        words = f"the upload has more than {limits.total_bytes:,} bytes"
        raise UploadRefused([Problem("size", "", words, "upload the adapter alone, or raise the limit on uploads")])


def _unzipped(source: BinaryIO) -> BinaryIO:
    begun = _Begun(source)
    magic = begun.peek(6)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=begun)  # type: ignore[call-overload, no-any-return]
    for mark, words in ((b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if magic.startswith(mark):
            words = f"the upload is a {words} archive, which is not read"
            raise UploadRefused([Problem("archive", "", words, "upload a plain or gzipped tar")])
    return begun  # type: ignore[return-value]


class _Begun:
    """A stream that was looked into; short reads of a pipe are filled up."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._head = b""

    def peek(self, size: int) -> bytes:
        self._head = self._exactly(size)
        return self._head

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head + self._exactly(size - len(head))

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size > 0 and (data := self._source.read(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


def _copy(source: BinaryIO, target: Path, num_bytes: int) -> str:
    """Its digest. Raises EOFError."""
    digest, left = hashlib.sha256(), num_bytes
    with target.open("xb") as out:
        while left:
            data = source.read(min(left, _CHUNK_BYTES))
            if not data:
                raise EOFError(f"{left:,} bytes of {target.name} are missing")
            out.write(data)
            digest.update(data)
            left -= len(data)
    return f"sha256:{digest.hexdigest()}"
