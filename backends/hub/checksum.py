"""A file's digest, as a hub lists it, computed while the bytes pass."""

from __future__ import annotations

import hashlib


class Checksum:
    """Of a file of `size_bytes`; `digest` tells the kind: `sha256:...` or `git-sha1:...`."""

    def __init__(self, digest: str, size_bytes: int) -> None:
        self._kind, _, self._wanted = digest.partition(":")
        if self._kind == "sha256":
            self._hash = hashlib.sha256()
        elif self._kind == "git-sha1":
            # git names a blob by the hash of this head and the content: identity, not security.
            self._hash = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        else:
            raise ValueError(f"unknown kind of digest: {digest}")

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)

    @property
    def is_right(self) -> bool:
        return self._hash.hexdigest() == self._wanted

    @property
    def words(self) -> str:
        """For a message: what came, and what should have."""
        return f"its {self._kind} is {self._hash.hexdigest()}, the hub lists {self._wanted}"
