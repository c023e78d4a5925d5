"""Which hub, and as whom: from the same variables and files as the hub's own clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from backends.hub.errors import HubError

ENDPOINT = "https://huggingface.co"
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True, slots=True)
class Access:
    endpoint: str = ENDPOINT
    """Scheme, host, perhaps a path; no slash at its end."""
    token: str = field(default="", repr=False)
    token_source: str = ""
    """Where the token came from, for messages."""
    is_offline: bool = False
    """No hub is asked."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Access:
        """HF_ENDPOINT, HF_TOKEN or the token file of `hf auth login`, HF_HUB_OFFLINE. Raises HubError: what can be neither."""
        endpoint = (env.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        if "@" in endpoint:  # it would be shown and stored wherever a model came from is
            raise HubError(
                "HF_ENDPOINT holds a user's name or password (before an @): give http(s)://HOST, and a token in HF_TOKEN"
            )
        if not _is_url(endpoint):
            raise HubError(f"HF_ENDPOINT={endpoint}: expected http(s)://HOST")
        token, source = ("", "") if _is_true(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN") else _find_token(env)
        if not token.isascii():
            raise HubError(f"{source} holds something that is no token")
        is_offline = _is_true(env, "HF_HUB_OFFLINE") or _is_true(env, "TRANSFORMERS_OFFLINE")
        return cls(endpoint, token, source, is_offline)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def _is_true(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").upper() in _TRUE


def _find_token(env: Mapping[str, str]) -> tuple[str, str]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := _clean(env.get(name, "")):
            return token, name
    path = _token_file(env)
    try:
        return _clean(path.read_text(encoding="utf-8")), str(path)
    except (OSError, UnicodeDecodeError):
        return "", ""


def _token_file(env: Mapping[str, str]) -> Path:
    cache = env.get("XDG_CACHE_HOME") or "~/.cache"
    home = env.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expandvars(env.get("HF_TOKEN_PATH") or f"{home}/token")).expanduser()


def _clean(token: str) -> str:
    return "".join(token.split())
