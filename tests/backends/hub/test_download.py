"""One file, and everything that can go wrong on its way: whole under its name, or absent."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from backends.hub import download
from backends.hub.client import HubClient
from backends.hub.download import Download
from backends.hub.errors import Corrupt, HubError, StoreFailed, Unreachable
from backends.hub.events import Advanced, Checking, Downloading, Event, Retrying, Stored
from backends.hub.listing import RemoteFile
from backends.hub.partial import Partial
from tests.hub_server import Fault, HubServer, Pause

SIZE = 300_000
BODY = random.Random(7).randbytes(SIZE)


class Rig:
    """A repository of one large and one small file, and a folder for each to go to."""

    def __init__(self, hub: HubServer, client: HubClient, folder: Path) -> None:
        self.hub = hub
        self.client = client
        self.folder = folder
        self.commit = hub.add("o/n", {"m.gguf": BODY, "config.json": b'{"a": 1}\n'})
        self.files = {file.path: file for file in client.tree("o/n", self.commit)}
        self.events: list[Event] = []
        self.target = folder / "whole" / "m.gguf"

    def fetch(self, path: str = "m.gguf", client: HubClient | None = None) -> Path:
        target = self.folder / "whole" / path
        made = Download(client or self.client, "o/n", self.commit, self.folder / "partial", self.events.append)
        made.fetch(self.files[path], target)
        return target

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def reasons(self) -> str:
        return "\n".join(event.reason for event in self.events if isinstance(event, Retrying))

    @property
    def ranges(self) -> list[str | None]:
        return [seen.headers.get("range") for seen in self.hub.requests("store")]

    @property
    def part(self) -> Path:
        return next((self.folder / "partial").glob("*.part"))


@pytest.fixture
def rig(hub: HubServer, client: HubClient, tmp_path: Path) -> Rig:
    return Rig(hub, client, tmp_path)


def test_a_file_comes_whole(rig: Rig) -> None:
    assert rig.fetch().read_bytes() == BODY
    assert rig.fetch("config.json").read_bytes() == b'{"a": 1}\n'
    assert rig.of(Stored) == [Stored("m.gguf", SIZE), Stored("config.json", 9)]
    assert rig.of(Advanced)[-1] == Advanced("config.json", 9)
    assert list((rig.folder / "partial").iterdir()) == []


def test_an_empty_file(rig: Rig) -> None:
    commit = rig.hub.add("o/n", {"empty.txt": b""})
    (file,) = rig.client.tree("o/n", commit)
    Download(rig.client, "o/n", commit, rig.folder / "partial", rig.events.append).fetch(file, rig.folder / "empty.txt")
    assert (rig.folder / "empty.txt").read_bytes() == b""


def test_a_range_that_ends_beyond_the_file_fills_no_disk(rig: Rig) -> None:
    rig.hub.faults += [
        Fault(end_at=1000), Fault(206, {"content-range": "bytes 1000-999999/*"}, bytes(999_000)),
    ]  # fmt: skip
    with pytest.raises(Corrupt, match=r"m\.gguf: the server has 1,000,000 bytes or more, the hub lists 300,000"):
        rig.fetch()
    assert rig.part.stat().st_size == 1000
    assert rig.fetch().read_bytes() == BODY


def test_a_range_of_thousands_of_digits(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=1), Fault(206, {"content-range": f"bytes 1-{'9' * 5000}/*"})]
    assert rig.fetch().read_bytes() == BODY


def test_a_range_without_bytes_is_given_up(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=1), *[Fault(206, {"content-range": "bytes 1-0/*"})] * 20]
    with pytest.raises(Unreachable, match="gave up after 8 attempts"):
        rig.fetch()


@pytest.mark.parametrize("kind", ["reset_at", "end_at"])
def test_a_connection_that_breaks_goes_on_where_it_was(kind: str, rig: Rig, delays: list[float]) -> None:
    rig.hub.faults += [Fault(**{kind: at}) for at in (100_000, 250_000)]
    assert rig.fetch().read_bytes() == BODY
    assert len(delays) == 2
    offsets = [event.offset_bytes for event in rig.events if isinstance(event, Downloading)]
    assert offsets[0] == 0
    assert 0 < offsets[1] <= 100_000 < offsets[2] <= 250_000
    assert rig.ranges[1:] == [f"bytes={offset}-{SIZE - 1}" for offset in offsets[1:]]
    assert all(seen.headers["if-range"] for seen in rig.hub.requests("store")[1:])
    assert rig.hub.sent_bytes < SIZE * 1.5


def test_another_process_goes_on(rig: Rig, client_with: Callable[[str], HubClient]) -> None:
    rig.hub.faults += [Fault(end_at=120_000), *[Fault(status=500)] * 8]
    with pytest.raises(
        Unreachable, match=r"answers 500.*; gave up after 8 attempts in a row, 120,000 of 300,000 bytes"
    ):
        rig.fetch()
    assert not rig.target.exists()
    assert rig.part.stat().st_size == 120_000
    rig.events.clear()
    assert rig.fetch(client=client_with("")).read_bytes() == BODY
    assert rig.events[:2] == [Checking("m.gguf", 120_000), Downloading("m.gguf", SIZE, 120_000)]


def test_a_server_without_ranges_begins_anew(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=100_000), Fault(ignores_range=True)]
    assert rig.fetch().read_bytes() == BODY
    assert "sends the file from its beginning" in rig.reasons


def test_a_server_without_ranges_that_always_breaks_is_given_up(
    rig: Rig, delays: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "HEADWAY_BYTES", 20_000)  # what was reached before is none
    rig.hub.faults += [Fault(ignores_range=True, end_at=at * 1000) for at in (90, 10, 80, 20, 70, 30, 60, 40, 50, 55)]
    with pytest.raises(Unreachable, match="gave up after 8 attempts"):
        rig.fetch()
    assert len(delays) == 7
    assert sum(delays) > 45  # a network that is away for a minute or so is outlived


def test_a_changed_etag_begins_anew(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=100_000, etag='"before"'), Fault(etag='"after"')]
    assert rig.fetch().read_bytes() == BODY
    assert rig.hub.requests("store")[1].headers["if-range"] == '"before"'
    assert rig.hub.sent_bytes == SIZE + 100_000


def test_a_weak_etag_is_no_condition(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=100_000, etag='W/"x"')]
    assert rig.fetch().read_bytes() == BODY
    assert "if-range" not in rig.hub.requests("store")[1].headers


def test_other_content_under_the_same_etag_is_found_by_the_checksum(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=100_000, flip_at=50)]
    assert rig.fetch().read_bytes() == BODY
    assert "came whole, but its sha256 is" in rig.reasons


def test_wrong_bytes_twice_are_an_error_and_not_kept(rig: Rig) -> None:
    rig.hub.faults += [Fault(flip_at=1234), Fault(flip_at=SIZE - 1)]
    digest = hashlib.sha256(BODY).hexdigest()
    with pytest.raises(Corrupt, match=f"its sha256 is [0-9a-f]+, the hub lists {digest}; it was fetched 2 times"):
        rig.fetch()
    assert not rig.target.exists()
    assert rig.part.stat().st_size == 0


def test_a_small_file_is_checked_too(rig: Rig) -> None:
    rig.hub.faults += [Fault(flip_at=1)] * 2
    with pytest.raises(Corrupt, match="its git-sha1 is"):
        rig.fetch("config.json")


def test_another_file_than_was_listed(rig: Rig) -> None:
    rig.hub.linked_etag = "f" * 64
    with pytest.raises(Corrupt, match=r"the hub now offers sha256 ffff.*pull again later"):
        rig.fetch()
    assert rig.hub.requests("store") == []


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_another_size_than_was_listed(size: int, rig: Rig) -> None:
    digest = "sha256:" + hashlib.sha256(BODY).hexdigest()
    rig.files["m.gguf"] = RemoteFile("m.gguf", size, digest)
    with pytest.raises(Corrupt, match="300,000"):
        rig.fetch()
    assert not rig.target.exists()


def test_more_bytes_than_announced(rig: Rig) -> None:
    file = RemoteFile("config.json", 4, rig.files["config.json"].digest)
    rig.files["config.json"] = file
    with pytest.raises(Corrupt):
        rig.fetch("config.json")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 403])
def test_a_store_in_trouble_is_asked_again_with_a_new_address(status: int, rig: Rig, delays: list[float]) -> None:
    rig.hub.faults += [Fault(status=status, headers={"retry-after": "3"})] * 2
    assert rig.fetch().read_bytes() == BODY
    assert delays == [3.0, 3.0]
    assert len(rig.hub.requests("hub", "/resolve/")) == 3


def test_a_connection_that_stalls_is_given_up_and_made_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.hub.client.TIMEOUT", httpx.Timeout(10.0, read=1.0))
    rig.hub.pause = Pause(100_000)

    def sleep(delay_s: float) -> None:
        rig.hub.pause = None

    with HubClient(rig.client.access, sleep=sleep) as client:
        assert rig.fetch(client=client).read_bytes() == BODY
    assert "the connection broke: nothing came in time" in rig.reasons
    assert rig.ranges[-1] == f"bytes=100000-{SIZE - 1}"


def test_a_server_that_refuses_the_range(rig: Rig) -> None:
    rig.hub.faults += [Fault(end_at=100_000), Fault(status=416)]
    assert rig.fetch().read_bytes() == BODY
    assert rig.ranges[-1] is None


def test_a_file_too_large_for_one_answer_is_asked_for_in_pieces(rig: Rig, delays: list[float]) -> None:
    with HubClient(rig.client.access, sleep=delays.append, max_request_bytes=100_000) as client:
        rig.hub.faults += [Fault(), Fault(end_at=150_000)]
        assert rig.fetch(client=client).read_bytes() == BODY
    assert rig.ranges == ["bytes=0-99999", "bytes=100000-199999", "bytes=150000-249999", "bytes=250000-299999"]
    assert len(delays) == 1


def test_a_full_part_needs_no_network(rig: Rig) -> None:
    """Killed between the last byte and the rename."""
    with Partial(rig.folder / "partial", rig.files["m.gguf"]) as partial:
        partial.write(BODY)
    rig.hub.seen.clear()
    assert rig.fetch().read_bytes() == BODY
    assert rig.hub.seen == []


@pytest.mark.parametrize("left", [b"x" * (SIZE + 5), b"x" * 1000], ids=["too long", "of something else"])
def test_a_part_that_is_worth_nothing(left: bytes, rig: Rig) -> None:
    with Partial(rig.folder / "partial", rig.files["m.gguf"]) as partial:
        path = partial.path
    path.write_bytes(left)
    path.with_suffix(".json").write_text("{not json")
    assert rig.fetch().read_bytes() == BODY


def test_a_full_disk_keeps_the_part(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.pwrite, [150_000]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if offset >= room[0]:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data)[: room[0] - offset], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(StoreFailed, match=r"the disk is full: .* takes no more; free some space"):
        rig.fetch()
    assert not rig.target.exists()
    assert rig.part.stat().st_size == 150_000
    room[0] = SIZE
    assert rig.fetch().read_bytes() == BODY
    assert rig.of(Checking) == [Checking("m.gguf", 150_000)]


def test_a_folder_that_cannot_be_written(rig: Rig) -> None:
    (rig.folder / "partial").write_text("a file")
    with pytest.raises(StoreFailed, match="partial"):
        rig.fetch()


def test_cut_at_every_kind_of_place(rig: Rig) -> None:
    """By seed: whatever is cut, ignored, changed or flipped, the file is right or absent."""
    draw = random.Random(3)
    for round_number in range(40):
        rig.target.unlink(missing_ok=True)
        rig.hub.faults.clear()
        rig.hub.faults += [_random_fault(draw) for _ in range(draw.randrange(6))]
        try:
            rig.fetch()
        except HubError:
            assert not rig.target.exists(), round_number
        else:
            assert rig.target.read_bytes() == BODY, round_number


def _random_fault(draw: random.Random) -> Fault:
    at = draw.randrange(SIZE)
    return draw.choice(
        [
            lambda: Fault(reset_at=at),
            lambda: Fault(end_at=at),
            lambda: Fault(end_at=at, flip_at=draw.randrange(SIZE)),
            lambda: Fault(ignores_range=True, end_at=at),
            lambda: Fault(etag=f'"{at}"', reset_at=at),
            lambda: Fault(status=draw.choice([403, 416, 429, 500, 503])),
        ]
    )()
