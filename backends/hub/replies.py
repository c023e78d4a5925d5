"""What a hub's refusal means, by status and `x-error-code`. Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time

import httpx

from backends.hub.access import Access
from backends.hub.errors import AccessDenied, HubError, NoSuchModel, Transient

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


def refusal(reply: httpx.Response, access: Access, repo: str, what: str) -> HubError:
    """The error that a hub's answer of status 4xx or 5xx stands for; `what` was asked for, in words."""
    status, code = reply.status_code, reply.headers.get("x-error-code", "")
    said = reply.headers.get("x-error-message", "")
    if status in _TRANSIENT:
        return Transient(f"{_host(reply)} answers {status}{f' ({said})' if said else ''}", retry_after_s(reply))
    if code == "GatedRepo":
        return AccessDenied(_gated(access, repo))
    if status == 401 and access.token and "credentials" in said:
        return AccessDenied(
            f"{access.endpoint} refuses the token of {access.token_source}: it is wrong, or has expired"
        )
    if code == "RevisionNotFound":
        return NoSuchModel(f"{repo} has no such revision: {what}")
    if code == "EntryNotFound":
        return NoSuchModel(f"{repo} has no {what}")
    if code == "RepoNotFound" or status in (401, 404):
        return NoSuchModel(_missing(access, repo))
    if status == 403:
        return AccessDenied(f"{access.endpoint} gives no access to {repo}: {said or 'status 403'}")
    return HubError(f"{_host(reply)} answers {status} for {what} of {repo}{f': {said}' if said else ''}")


def retry_after_s(reply: httpx.Response) -> float | None:
    """Seconds, also of a date; None where the server asks for nothing."""
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time()) if value else None
    except ValueError:
        return None


def _gated(access: Access, repo: str) -> str:
    page = f"{access.endpoint}/{repo}"
    if access.token:
        return f"{repo} is gated, and the account of the token in {access.token_source} has no access yet: ask for it at {page}"
    return f"{repo} is gated: accept its terms at {page}, then set HF_TOKEN to a token of that account"


def _missing(access: Access, repo: str) -> str:
    may = "that the token may read" if access.token else "that is public (a private one needs HF_TOKEN)"
    return f"{access.endpoint} has no model {repo} {may}"


def _host(reply: httpx.Response) -> str:
    return reply.url.netloc.decode("ascii", "replace")
