"""A pull for the user's eyes: shown while it goes on, stopped by Ctrl-C without loss."""

from __future__ import annotations

import sys

from backends.hub.access import Access
from backends.hub.client import HubClient
from backends.hub.errors import NotPulled
from backends.hub.events import Retrying
from backends.hub.manifest import Manifest
from backends.hub.names import HubName
from backends.hub.pull import Refusal, pull
from backends.hub.store import Shelf, Store
from gateway.pullview import make_view

OFFLINE = "no hub may be asked: --offline or HF_HUB_OFFLINE is set"


def pull_visibly(
    store: Store,
    name: HubName,
    access: Access,
    is_json: bool,
    *,
    pattern: str = "",
    refusal: Refusal | None = None,
) -> tuple[Shelf, Manifest]:
    """Raises HubError; KeyboardInterrupt after a word on what stays."""
    if access.is_offline:
        raise NotPulled(OFFLINE)
    try:
        with (
            make_view(is_json) as view,
            HubClient(access, lambda why, delay_s: view(Retrying("", why, delay_s))) as client,
        ):
            return pull(client, store, name, view, pattern=pattern, refusal=refusal)
    except KeyboardInterrupt:
        print(f"stopped; what came so far stays: `forgegate models pull {name}` goes on from there", file=sys.stderr)
        raise
