"""What is said of the log of conversations when the gateway starts; the workers write it (`gateway.data.conversations`)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.config import Conversations
from gateway.exits import CommandError
from gateway.logfile import LogFile


def notice(rules: Conversations) -> str:
    """Empty where nothing is kept."""
    if not rules.file:
        return ""
    models = ", ".join(rules.models) or "all models"
    masked = "personal data is masked" if rules.mask else "PERSONAL DATA IS NOT MASKED (conversations.mask: false)"
    return (
        f"CONVERSATIONS ARE KEPT: {100 * rules.share:g} % of the chats with {models} are written to {rules.file}; {masked}; "
        "clients opt out with the header x-forgegate-no-log: 1"
    )


def require_writable(rules: Conversations) -> None:
    """Raises CommandError."""
    if not rules.file:
        return
    try:
        LogFile(Path(rules.file).expanduser(), rules.max_bytes, rules.keep).check()
    except OSError as exc:
        raise CommandError(f"conversations.file: {rules.file}: {exc.strerror or exc}") from exc


def for_workers(rules: Conversations) -> str:
    """As FORGEGATE_CONVERSATIONS has it: JSON, or empty."""
    return msgspec.json.encode(rules).decode() if rules.file else ""
