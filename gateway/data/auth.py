"""API keys: who may use the endpoint."""

from __future__ import annotations

import hashlib
from hmac import compare_digest

from gateway.data.snapshot import Index
from gateway.errors import Unauthorized

CONFLICT = b"\0"
"""In place of a digest, where a request gives two different keys."""
_OPEN = frozenset({"/health/live", "/health/ready", "/metrics"})


def is_guarded(path: str) -> bool:
    """Return whether `path` asks for a key when there are keys.

    Everything does that is not listed as open: a path that only decodes to a guarded one must not slip through.
    """
    return path not in _OPEN


def token_digest(authorization: bytes) -> bytes:
    """Return the SHA-256 of the bearer token in an `authorization` header, empty where there is none."""
    scheme, _, token = authorization.partition(b" ")
    return key_digest(token) if scheme.lower() == b"bearer" else b""


def key_digest(key: bytes) -> bytes:
    """Return the SHA-256 of a key as an `x-api-key` header holds it, empty where there is none."""
    key = key.strip()
    return hashlib.sha256(key).digest() if key else b""


def agreed(one: bytes, other: bytes) -> bytes:
    """Return the one digest of a request that gives its key twice; keys that differ make none that could be known."""
    if not one or not other:
        return one or other
    return one if one == other else CONFLICT


def authenticate(index: Index, digest: bytes) -> str:
    """Return the name of the key whose `token_digest` this is, empty where no keys are configured.

    Raises Unauthorized. Every key is compared, each in constant time, so that neither a match's position nor a common
    prefix shows in the time.
    """
    if not index.key_digests:
        return ""
    if not digest:
        raise Unauthorized("an API key is required: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`")
    if digest == CONFLICT:
        raise Unauthorized("`Authorization` and `x-api-key` hold different keys: send one of them")
    found: str | None = None
    for known, name in index.key_digests:
        if compare_digest(digest, known):
            found = name
    if found is None:
        raise Unauthorized("the API key is not known here")
    return found
