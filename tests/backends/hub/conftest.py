"""A hub on this machine, and a store on its disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.hub.access import Access
from backends.hub.client import HubClient
from backends.hub.events import Event
from backends.hub.store import Store
from tests.hub_server import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def delays() -> list[float]:
    """What the client waited, without waiting."""
    return []


@pytest.fixture
def client(hub: HubServer, delays: list[float]) -> Iterator[HubClient]:
    with HubClient(Access(hub.url), sleep=delays.append) as made:
        yield made


@pytest.fixture
def client_with(hub: HubServer, delays: list[float]) -> Iterator[Callable[[str], HubClient]]:
    """A client with this token."""
    made: list[HubClient] = []

    def make(token: str) -> HubClient:
        made.append(HubClient(Access(hub.url, token, "HF_TOKEN"), sleep=delays.append))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "hub")


@pytest.fixture
def events() -> list[Event]:
    return []
