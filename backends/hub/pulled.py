"""Which of the models on disk a name means."""

from __future__ import annotations

from backends.hub.choice import PREFERENCE
from backends.hub.errors import NoChoice
from backends.hub.manifest import Manifest
from backends.hub.names import HubName
from backends.hub.store import Shelf, Store


def find_pulled(store: Store, name: HubName) -> tuple[Shelf, Manifest] | None:
    """Without a label the first by the order that a hub's models are chosen in, of those that are here.

    None where nothing here fits. Raises NoChoice listing what does, where the order does not decide.
    """
    found = store.find(name)
    if not found:
        return None
    if len({held.label for _, held in found}) == 1:
        return max(found, key=lambda pair: pair[1].pulled_at)
    for tag in PREFERENCE:
        of_tag = [pair for pair in found if pair[1].tag == tag]
        if len(of_tag) == 1:
            return of_tag[0]
    ggufs = [pair for pair in found if pair[1].is_gguf]
    if len(ggufs) == 1:
        return ggufs[0]
    raise NoChoice("\n".join([f"{name} may be several of the models on this disk: name one of them", *_names(found)]))


def _names(found: list[tuple[Shelf, Manifest]]) -> list[str]:
    return [f"  {held.name}" for _, held in found]
