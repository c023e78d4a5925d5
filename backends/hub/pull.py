"""A whole model from a hub: listed, chosen, fetched, and only then called pulled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.hub.choice import Choice, choose
from backends.hub.client import HubClient
from backends.hub.download import Download
from backends.hub.errors import NoChoice, StoreFailed
from backends.hub.events import Finished, Listed, Stored, Tell
from backends.hub.listing import RemoteFile, RepoInfo
from backends.hub.manifest import Manifest
from backends.hub.names import MAIN, HubName
from backends.hub.partial import storing
from backends.hub.store import MANIFEST, UNFINISHED, Shelf, Store
from backends.plan import size_words

SPARE_BYTES = 64 << 20
"""Left free on the disk."""

Refusal = Callable[[Mapping[str, Any]], str]
"""Looks at a model's config.json; why it should not be fetched, or an empty text."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a hub has under a name."""

    info: RepoInfo
    choice: Choice


def ask(client: HubClient, name: HubName, pattern: str = "") -> Offer:
    """What a pull of `name` would fetch. Raises HubError."""
    info = client.info(name.repo, name.revision or MAIN)
    files = client.tree(name.repo, info.commit)

    def read(file: RemoteFile) -> bytes:
        return client.read(name.repo, info.commit, file)

    return Offer(info, choose(name.repo, files, name.label, pattern, read))


def pull(
    client: HubClient, store: Store, name: HubName, tell: Tell, *, pattern: str = "", refusal: Refusal | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[Shelf, Manifest]:  # fmt: skip
    """Fetch what is not here. Raises HubError; what came so far stays, and the next pull goes on from there."""
    offer = ask(client, name, pattern)
    refuse_early(client, name, offer, refusal)
    manifest = _manifest(client, name, offer, clock())
    shelf = store.shelf(name.repo, manifest.label, name.revision)
    store.empty_trash()
    with shelf.locked(tell):
        held = shelf.manifest
        is_new = held is None or (held.commit, held.files) != (manifest.commit, manifest.files)
        if is_new:
            _take_over(store, shelf, manifest)
            manifest.write(shelf.folder / UNFINISHED)
            _fetch(client, shelf, manifest, offer, tell)
            manifest.write(shelf.folder / MANIFEST)
        manifest = manifest if is_new or held is None else held
        with storing(shelf.folder):  # also what a pull left that was killed after it had written the manifest
            (shelf.folder / UNFINISHED).unlink(missing_ok=True)
        shelf.tidy(tell)
    tell(Finished(manifest.name, str(shelf.entry_of(manifest)), manifest.num_bytes, is_new))
    return shelf, manifest


def refuse_early(client: HubClient, name: HubName, offer: Offer, refusal: Refusal | None) -> None:
    """Before gigabytes come that are of no use. Raises NoChoice with the `refusal`."""
    config = next((file for file in offer.choice.files if file.path == "config.json"), None)
    if refusal is not None and config is not None:
        with suppress(ValueError, RecursionError):  # whoever reads it in the end says what is wrong with it
            content = json.loads(client.read(name.repo, offer.info.commit, config))
            if isinstance(content, dict) and (reason := refusal(content)):
                raise NoChoice(reason)


def _manifest(client: HubClient, name: HubName, offer: Offer, now: datetime) -> Manifest:
    choice = offer.choice
    return Manifest(
        repo=name.repo,
        label=choice.label,
        revision=name.revision,
        commit=offer.info.commit,
        endpoint=client.access.endpoint,
        # A folder gets the repository's name: what is made of it is named after it.
        entry=choice.entry if choice.is_gguf else name.repo.partition("/")[2],
        is_gguf=choice.is_gguf,
        files=choice.files,
        pulled_at=now.isoformat(timespec="seconds"),
    )


def _fetch(client: HubClient, shelf: Shelf, manifest: Manifest, offer: Offer, tell: Tell) -> None:
    """Every file of `manifest`, whole. Raises HubError."""
    present_bytes = shelf.present_bytes(manifest)
    tell(
        Listed(
            manifest.name, offer.info.repo, manifest.commit, offer.choice.why, len(manifest.files), manifest.num_bytes,
            present_bytes, str(shelf.commit_folder(manifest)),
        )
    )  # fmt: skip
    _require_disk(shelf, manifest.num_bytes - present_bytes)
    download = Download(client, manifest.repo, manifest.commit, shelf.partials, tell)
    for file in manifest.files:
        if shelf.has(manifest, file):
            tell(Stored(file.path, file.size_bytes))
        else:
            download.fetch(file, shelf.path_of(manifest, file))


def _take_over(store: Store, shelf: Shelf, manifest: Manifest) -> None:
    """A new commit seldom changes all files: those with the same digest are here already, for another commit or name."""
    here: dict[str, Path] = {}
    for other in store.shelves():
        for held in (other.manifest, other.unfinished):
            if held is not None and held.repo == manifest.repo:
                here.update({file.digest: other.path_of(held, file) for file in held.files if other.has(held, file)})
    for file in manifest.files:
        target = shelf.path_of(manifest, file)
        if file.digest in here and not target.exists():
            with suppress(OSError):  # no hard links on this file system: then it is fetched
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(here[file.digest], target)


def _require_disk(shelf: Shelf, missing_bytes: int) -> None:
    with storing(shelf.folder):
        free_bytes = shutil.disk_usage(shelf.folder).free
    if missing_bytes + SPARE_BYTES > free_bytes:
        raise StoreFailed(
            f"{shelf.name}: {size_words(missing_bytes)} are to come, {shelf.folder} has {size_words(free_bytes)} free: "
            "free some space, or set FORGEGATE_HOME to another disk"
        )
