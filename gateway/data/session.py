"""Whose request it is, as far as it says: what a split alias keeps to one version.

    x-session-id header > safety_identifier > user > metadata.user_id

The header comes first: it exists for routers alone (Ray Serve goes by it, https://github.com/ray-project/ray/pull/63362),
and lets a client choose a finer grain than its user. `safety_identifier` and `user` are OpenAI's names of the end user, the
newer one first; `metadata.user_id` is Anthropic's. `prompt_cache_key` is left alone: many clients send the same one for all
of their users, and a whole split would go to one version.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.data.body import NOTHING, Fields
from gateway.data.request import RequestHead

_HEADER = b"x-session-id: "


class _Metadata(msgspec.Struct):
    user_id: Any = None


_decode = msgspec.json.Decoder(_Metadata).decode


def session_key(head: RequestHead, fields: Fields) -> bytes:
    """Return the request's session or user, empty where it names neither. A field of another type than string says nothing."""
    for line in head.forwarded:
        if line.startswith(_HEADER) and (session := line[len(_HEADER) :].strip()):
            return session
    for value in (fields.safety_identifier, fields.user, _user_id(fields.metadata)):
        if type(value) is str and value:
            return value.encode("utf-8", "surrogatepass")
    return b""


def _user_id(metadata: msgspec.Raw) -> object:
    if metadata is NOTHING:
        return None
    try:
        return _decode(metadata).user_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
