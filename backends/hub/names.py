"""How a hub's model is named: `ORG/NAME[:QUANT][@REVISION]`. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from backends.hub.errors import BadName

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(
    rf"(?P<repo>{_WORD}/{_WORD})(?::(?P<label>{_WORD}))?(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/+-]*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GGUF_ENDING = re.compile(r"[._-]gguf$", re.IGNORECASE)
MAX_REPO_LENGTH = 96
MAIN = "main"
"""The revision that a name without one means; every repository of a hub has it."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A model as the user names it."""

    repo: str
    """`ORG/NAME`."""
    label: str = ""
    """Which of the repository's models: a quantisation (`Q5_K_M`), `safetensors`, or a GGUF file's name; empty: the usual one."""
    revision: str = ""
    """Branch, tag or commit; empty: the main branch."""

    @property
    def is_commit(self) -> bool:
        """Whether the revision can never mean anything else."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{self.repo}{':' + self.label if self.label else ''}{'@' + self.revision if self.revision else ''}"


def parse_name(text: str) -> HubName:
    """Raises BadName, with what was meant where that can be guessed."""
    match = _NAME.fullmatch(text)
    repo, label, revision = match.group("repo", "label", "revision") if match else ("", None, None)
    if not repo or len(repo) > MAX_REPO_LENGTH or ".." in text or "--" in repo:
        raise BadName(f"{text!r} is not a model's name: {_hint(text)}expected ORG/NAME[:QUANT][@REVISION]")
    return HubName(repo, label or "", "" if revision in (None, MAIN) else revision)


def with_revision(name: HubName, revision: str | None) -> HubName:
    """`name` at `--revision`. Raises BadName: malformed, or the name already has another one."""
    if revision is None or revision == (name.revision or MAIN):
        return name
    if name.revision:
        raise BadName(f"{name} and --revision {revision} exclude each other: give one revision")
    return parse_name(f"{replace(name, revision='')}@{revision}")


def looks_like_hub_name(text: str) -> bool:
    """Whether a model that is given by this text may be a hub's: it has the form, and no such path exists."""
    if text.lower().endswith((".gguf", ".safetensors")) or os.path.exists(text):
        return False
    try:
        parse_name(text)
    except BadName:
        return False
    return True


def public_name(name: HubName) -> str:
    """What clients ask for by default: the repository's name, without the form it comes in."""
    bare = name.repo.partition("/")[2]
    return _GGUF_ENDING.sub("", bare) or bare


def _hint(text: str) -> str:
    parts = [part for part in urlsplit(text).path.split("/") if part] if "://" in text else []
    if len(parts) >= 2:
        return f"did you mean {parts[0]}/{parts[1]}? "
    if "@" in text and ":" in text.partition("@")[2]:
        return "the revision goes last: "
    return ""
