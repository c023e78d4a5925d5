"""API keys: who may use the endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from hmac import compare_digest

from gateway.data.snapshot import Index, ModelRoute
from gateway.errors import Forbidden, Unauthorized

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
    return key_digest(_bearer(authorization))


def key_digest(key: bytes) -> bytes:
    """Return the SHA-256 of a key as an `x-api-key` header holds it, empty where there is none."""
    key = key.strip()
    return hashlib.sha256(key).digest() if key else b""


def agreed(one: bytes, other: bytes) -> bytes:
    """Return the one digest of a request that gives its key twice; keys that differ make none that could be known."""
    if not one or not other:
        return one or other
    return one if one == other else CONFLICT


def digest_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the digest of the token that a request's headers give; names are in lower case."""
    digest = b""
    for name, value in headers:
        if name == b"authorization":
            digest = agreed(digest, token_digest(value))
        elif name == b"x-api-key":
            digest = agreed(digest, key_digest(value))
    return digest


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the key whose digest `digest_of` gives, where it is no CONFLICT; empty where there is none."""
    for name, value in headers:
        key = _bearer(value) if name == b"authorization" else value if name == b"x-api-key" else b""
        if key := key.strip():
            return key
    return b""


def is_admin(index: Index, digest: bytes) -> bool:
    """Return whether this is the `token_digest` of the admin token."""
    return bool(index.admin_digest) and compare_digest(digest, index.admin_digest)


def is_visible(index: Index, route: ModelRoute, digest: bytes) -> bool:
    """Return whether who has this digest may know of the version `route`: a candidate is the admin's alone."""
    return route.adapter is None or not route.adapter.is_candidate or is_admin(index, digest)


def require_admin(index: Index, digest: bytes) -> None:
    """Return for the admin. Raises Unauthorized for nobody and strangers, Forbidden for who has a client's key."""
    if is_admin(index, digest):
        return
    if not any(compare_digest(digest, known) for known, _ in index.key_digests):
        raise Unauthorized("this call needs the admin token: send it as `Authorization: Bearer TOKEN`")
    raise Forbidden("this call needs the admin token; an API key is not enough")


def authenticate(index: Index, digest: bytes) -> str:
    """Return the name of the key whose `token_digest` this is, empty where no keys are configured. The admin token counts as a key.

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


def _bearer(authorization: bytes) -> bytes:
    scheme, _, token = authorization.partition(b" ")
    return token if scheme.lower() == b"bearer" else b""
