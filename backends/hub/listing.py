"""What a hub says about a repository: its commit, its files with sizes and digests. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from backends.hub.errors import Unreachable

_HEX = re.compile(r"[0-9a-f]+")
_DIGEST_LENGTHS = {"sha256": 64, "git-sha1": 40}


@dataclass(frozen=True, slots=True)
class RepoInfo:
    repo: str
    """As the hub spells it now; a repository that was renamed is found under its old name too."""
    commit: str
    is_gated: bool


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str
    """In the repository, with `/`."""
    size_bytes: int
    digest: str
    """`sha256:<hex>` of what is stored as a large file, else `git-sha1:<hex>`, as git names a blob."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


def read_info(content: Any, repo: str) -> RepoInfo:
    """Of `GET /api/models/ORG/NAME/revision/REVISION`. Raises Unreachable when a hub would not answer so."""
    commit = content.get("sha") if isinstance(content, dict) else None
    if not isinstance(commit, str) or not _is_hex(commit, 40):
        raise Unreachable(f"what the hub answers for {repo} names no commit")
    return RepoInfo(str(content.get("id") or repo), commit, bool(content.get("gated")))


def read_tree(entries: Any) -> list[RemoteFile]:
    """The files of one page of `GET /api/models/ORG/NAME/tree/COMMIT`. Raises Unreachable: malformed, or a path that leads elsewhere."""
    if not isinstance(entries, list):
        raise Unreachable("the hub's list of files is not a list")
    try:
        return [_read_file(entry) for entry in entries if entry["type"] == "file"]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Unreachable(f"the hub's list of files cannot be read: {exc!r}") from exc


def _read_file(entry: dict[str, Any]) -> RemoteFile:
    path = entry["path"]
    if not is_safe(path):
        raise ValueError(f"unsafe path {path!r}")
    large = entry.get("lfs")
    size_bytes, kind, oid = (
        (large["size"], "sha256", large["oid"]) if large else (entry["size"], "git-sha1", entry["oid"])
    )
    oid = str(oid).removeprefix("sha256:")
    if not isinstance(size_bytes, int) or size_bytes < 0 or not _is_hex(oid, _DIGEST_LENGTHS[kind]):
        raise ValueError(f"no size or digest of {path!r}")
    return RemoteFile(path, size_bytes, f"{kind}:{oid}")


def is_safe(path: object) -> bool:
    """Whether a file of a repository may be put at this path below a folder."""
    if not isinstance(path, str) or not path.isprintable() or "\\" in path or len(path.encode()) > 1024:
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) < 240 for part in path.split("/"))


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and _HEX.fullmatch(text) is not None
