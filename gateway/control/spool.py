"""Uploads on their way: bytes of clients in files of ours, each gone when its job is done, at the latest when control starts again."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.plan import size_words
from gateway import errors

SPARE_BYTES = 256 * 1024 * 1024
"""What an upload leaves free on the disk."""
WRITE_BYTES = 4 * 1024 * 1024
"""Gathered before they are written: a thread for every small piece would cost more than the writing."""


class StorageFull(errors.GatewayError):
    """The disk does not take it."""

    status = 507
    code = "disk_full"


class Spool:
    """One folder, owned by this control process alone."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._folder = folder

    def clear(self) -> None:
        """At the start: nobody waits for what is there."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def check(self, num_bytes: int | None) -> None:
        """Before the first byte, if the client says how many come. Raises BodyTooLarge, StorageFull."""
        self._require_within(num_bytes or 0)
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < (num_bytes or 0) + SPARE_BYTES:
            raise StorageFull(
                f"{size_words(free)} are free in {self._folder}: too little; free some space and publish again"
            )

    async def receive(self, body: AsyncIterator[bytes]) -> Path:
        """The upload in a file, which the caller removes. Raises BodyTooLarge, StorageFull; what `body` raises. Nothing is left then."""
        with _new_file(self._folder, ".tar") as path:
            try:
                with path.open("wb") as file:
                    num_bytes = 0
                    async for piece in _gathered(body):
                        num_bytes += len(piece)
                        self._require_within(num_bytes)
                        await asyncio.to_thread(file.write, piece)
            except OSError as exc:
                raise _refusal(exc) from exc
        return path

    def drop(self, path: Path) -> None:
        """A file of ours that is not needed any more."""
        path.unlink(missing_ok=True)

    def new_file(self, suffix: str) -> Path:
        """A name for a file that the caller writes and removes."""
        with _new_file(self._folder, suffix) as path:
            return path

    def _require_within(self, num_bytes: int) -> None:
        if num_bytes > self.max_bytes:
            raise errors.BodyTooLarge(
                f"the upload is larger than {size_words(self.max_bytes)} (adapters.max_upload_bytes): upload the adapter alone"
            )


@contextmanager
def _new_file(folder: Path, suffix: str) -> Iterator[Path]:
    """Gone if the block fails."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=suffix)
    os.close(descriptor)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _refusal(exc: OSError) -> errors.GatewayError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the disk filled up during the upload; free some space and publish again")
    return StorageFull(f"the upload cannot be written: {exc.strerror or exc}")


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces."""
    parts: list[bytes] = []
    num_bytes = 0
    async for piece in body:
        parts.append(piece)
        num_bytes += len(piece)
        if num_bytes >= WRITE_BYTES:
            yield b"".join(parts)
            parts, num_bytes = [], 0
    if parts:
        yield b"".join(parts)
