"""Versions on this machine's disk: whether each is whole, what engines load of it, its reference."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from backends.adapter import manifest as manifests
from backends.adapter.golden import Golden, GoldenError, read_golden
from backends.adapter.manifest import VersionUnusable
from backends.adapter.sealed import remove_tree
from backends.adapter.store import Store
from gateway.control.desired import Version
from gateway.control.ingestion import KNOWN

GOLDEN = "golden.safetensors"
MAX_GOLDENS = 16
_FIX = "publish it again"


class Library:
    """What it finds wrong it says in words for a user. Files are read on other threads; what was whole once is not read again."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self._problems: dict[str, str] = {}
        """By digest, empty for one that is whole."""
        self._stamps: dict[str, tuple[object, ...]] = {}
        """Of those that were found whole, by digest."""
        self._goldens: OrderedDict[str, Golden] = OrderedDict()
        self._lock = threading.Lock()
        self._examining = asyncio.Lock()

    def known_problem(self, version: Version) -> str:
        """As far as it was looked for."""
        return self._problems.get(version.digest, "")

    async def problem(self, version: Version) -> str:
        """Why it cannot be loaded, with the fix; empty where it can."""
        if version.digest in self._problems:  # without waiting for what is read now
            return self._problems[version.digest]
        async with self._examining:
            if version.digest not in self._problems:
                self._problems[version.digest] = await asyncio.to_thread(self._examine, version)
            return self._problems[version.digest]

    async def file(self, version: Version, name: str) -> Path | str:
        """What an engine loads, the directory itself where `name` is empty; a text says why it cannot."""
        folder = self.store.version(version.digest)
        if not name:  # engines read it again, later and unasked
            return await self.inspect(version) or folder
        try:
            found = await asyncio.to_thread(self.store.attachment, version.digest, name)
        except (OSError, VersionUnusable) as exc:
            return f"{exc}; {_FIX}"
        return found or f"{folder / name} is missing or damaged; {_FIX}"

    async def inspect(self, version: Version, is_thorough: bool = False) -> str:
        """`problem`, from a look at its files now; they are read where they changed since, or all of them where `is_thorough`."""
        async with self._examining:
            self._problems[version.digest] = await asyncio.to_thread(self._look, version, is_thorough)
            return self._problems[version.digest]

    async def golden(self, version: Version) -> Golden | None:
        """None where it has none. Raises GoldenError for one that cannot be used."""
        return await asyncio.to_thread(self._golden, version)

    def forget(self, digest: str) -> None:
        """It was stored anew, or removed: look again."""
        self._problems.pop(digest, None)
        self._stamps.pop(digest, None)
        with self._lock:
            self._goldens.pop(digest, None)

    async def unmark(self, digest: str) -> None:
        """Unless it is known, too, the next start deletes it."""
        await asyncio.to_thread(self.store.unmark, digest, KNOWN)

    async def delete(self, digest: str) -> None:
        """Its files; killed in the middle, the next publication sweeps them."""
        self.forget(digest)
        await asyncio.to_thread(self._delete, digest)

    def _look(self, version: Version, is_thorough: bool) -> str:
        known = self._stamps.get(version.digest)
        with suppress(OSError):
            if not is_thorough and known is not None and known == manifests.stamp(self.store.version(version.digest)):
                return ""
        return self._examine(version)

    def _examine(self, version: Version) -> str:
        folder = self.store.version(version.digest)
        if not folder.is_dir():
            return f"its files are gone ({folder}); {_FIX}, or `forgegate adapters remove {version.name}`"
        self._stamps.pop(version.digest, None)
        try:
            stamp = manifests.stamp(folder)  # before they are read: what changes meanwhile is seen at the next look
            manifests.verify(folder)
        except (OSError, VersionUnusable) as exc:
            return f"{exc}; move {folder} away and {_FIX}"
        self._stamps[version.digest] = stamp
        return ""

    def _golden(self, version: Version) -> Golden | None:
        with self._lock:
            if version.digest in self._goldens:
                self._goldens.move_to_end(version.digest)
                return self._goldens[version.digest]
        try:
            path = self.store.attachment(version.digest, GOLDEN)
        except (OSError, VersionUnusable) as exc:
            raise GoldenError(f"{exc}; {_FIX}") from exc
        if path is None:
            if GOLDEN in manifests.read_manifest(self.store.version(version.digest)).attachments:
                raise GoldenError(f"its reference is missing or damaged; {_FIX}")
            return None
        golden = read_golden(path)
        if (golden.adapter_digest, golden.base_digest) != (version.digest, version.base_digest):
            raise GoldenError(f"its reference was made for another version or other weights; {_FIX}")
        with self._lock:
            self._goldens[version.digest] = golden
            while len(self._goldens) > MAX_GOLDENS:
                self._goldens.popitem(last=False)
        return golden

    def _delete(self, digest: str) -> None:
        folder = self.store.version(digest)
        going = folder.with_name(f".work-removed-{digest[:16]}-{os.getpid()}")
        try:
            folder.rename(going)
        except FileNotFoundError:
            return
        remove_tree(going)
