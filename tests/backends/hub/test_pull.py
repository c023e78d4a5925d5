"""Whole models, and what lies on disk before, between and after."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.hub import pull as pull_module
from backends.hub.client import HubClient
from backends.hub.errors import HubError, ModelInUse, NoChoice, StoreFailed
from backends.hub.events import Event, Finished, Kept, Listed, Stored, Waiting
from backends.hub.manifest import Manifest
from backends.hub.names import parse_name
from backends.hub.pull import pull
from backends.hub.pulled import find_pulled
from backends.hub.store import Shelf, Store
from tests.hub_server import Fault, HubServer
from tests.processes import ROOT, eventually

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PARTS = {f"big-Q8_0-0000{number}-of-00003.gguf": bytes([number]) * 50_000 for number in (1, 2, 3)}
FOLDER = {
    "config.json": b'{"architectures": ["X"]}', "tokenizer.json": b"{}", "model.safetensors": b"\1" * 70_000,
    "README.md": b"not taken", "modeling.py": b"not taken",
}  # fmt: skip


class Puller:
    def __init__(self, client: HubClient, store: Store) -> None:
        self.client = client
        self.store = store
        self.events: list[Event] = []

    def __call__(self, name: str, **options: str) -> tuple[Shelf, Manifest]:
        self.events.clear()
        return pull(self.client, self.store, parse_name(name), self.events.append, clock=lambda: NOW, **options)  # type: ignore[arg-type]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def puller(client: HubClient, store: Store) -> Puller:
    return Puller(client, store)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_split_gguf(hub: HubServer, puller: Puller, store: Store) -> None:
    commit = hub.add("o/n", {**PARTS, "big-Q4_0.gguf": b"other", "README.md": b"x"})
    shelf, held = puller("o/n:q8_0")
    assert shelf.entry_of(held) == store.root / "o" / "n" / "Q8_0" / commit[:12] / "big-Q8_0-00001-of-00003.gguf"
    assert {path.name: path.read_bytes() for path in shelf.entry_of(held).parent.iterdir()} == PARTS
    assert tree(shelf.folder) == {"manifest.json", *(f"{commit[:12]}/{path}" for path in PARTS)}
    (listed,) = puller.of(Listed)
    assert isinstance(listed, Listed)
    assert (listed.name, listed.num_files, listed.total_bytes, listed.present_bytes) == ("o/n:Q8_0", 3, 150_000, 0)


def test_the_manifest_says_what_it_is(hub: HubServer, puller: Puller) -> None:
    commit = hub.add("o/n", FOLDER)
    shelf, held = puller("o/n")
    content = json.loads((shelf.folder / "manifest.json").read_bytes())
    assert (content["repo"], content["commit"], content["endpoint"]) == ("o/n", commit, hub.url)
    assert content["pulled_at"] == "2026-11-25T12:00:00+00:00"
    assert {file["path"] for file in content["files"]} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert all(file["size_bytes"] and file["digest"] for file in content["files"])
    assert shelf.manifest == held
    assert held.name == "o/n:safetensors"


def test_a_folder_is_named_after_the_repository(hub: HubServer, puller: Puller) -> None:
    hub.add("o/Some-Model", FOLDER)
    shelf, held = puller("o/Some-Model")
    path = shelf.entry_of(held)
    assert path.name == "Some-Model"
    assert tree(path) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_again_nothing_is_fetched(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", FOLDER)
    puller("o/n")
    before = hub.sent_bytes
    shelf, held = puller("o/n")
    assert hub.sent_bytes == before
    assert puller.events == [Finished("o/n:safetensors", str(shelf.entry_of(held)), held.num_bytes, is_new=False)]


def test_what_a_pull_left_that_was_killed_at_its_very_end_goes(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", FOLDER)
    shelf, held = puller("o/n")
    held.write(shelf.folder / "unfinished.json")
    shelf.partials.mkdir()
    puller("o/n")
    assert puller.events[-1] == Finished("o/n:safetensors", str(shelf.entry_of(held)), held.num_bytes, is_new=False)
    assert {path.name for path in shelf.folder.iterdir()} == {"manifest.json", held.commit[:12]}


def test_a_folder_whose_repository_is_called_like_a_file(hub: HubServer, puller: Puller) -> None:
    commit = hub.add("o/n.gguf", FOLDER)
    shelf, held = puller("o/n.gguf")
    assert (held.is_gguf, held.tag, held.stem) == (False, "", "safetensors")
    assert {"manifest.json", f"{commit[:12]}/n.gguf/config.json"} <= tree(shelf.folder)
    assert shelf.manifest == held


def test_a_new_commit_brings_only_what_changed(hub: HubServer, puller: Puller) -> None:
    first = hub.add("o/n", FOLDER)
    shelf, _ = puller("o/n")
    before = hub.sent_bytes
    second = hub.add("o/n", {**FOLDER, "config.json": b'{"architectures": ["Y"]}'})
    assert first != second
    _, held = puller("o/n")
    assert hub.sent_bytes - before == len(b'{"architectures": ["Y"]}')
    assert (shelf.entry_of(held) / "config.json").read_bytes() == b'{"architectures": ["Y"]}'
    assert {path.split("/")[0] for path in tree(shelf.folder)} == {"manifest.json", second[:12]}


def test_a_pinned_revision_is_a_model_of_its_own(hub: HubServer, puller: Puller, store: Store) -> None:
    old = hub.add("o/n", {"m-Q4_0.gguf": b"old" * 1000}, branch="v1/x")
    hub.add("o/n", {"m-Q4_0.gguf": b"new" * 1000})
    puller("o/n")
    puller("o/n@v1/x")
    puller(f"o/n@{old}")
    assert [shelf.name for shelf in store.shelves()] == ["o/n:Q4_0", f"o/n:Q4_0@{old}", "o/n:Q4_0@v1/x"]
    for name, body in (("o/n", b"new"), ("o/n@v1/x", b"old"), (f"o/n:Q4_0@{old[:8]}", b"old")):
        found = find_pulled(store, parse_name(name))
        assert found is not None, name
        assert found[0].entry_of(found[1]).read_bytes() == body * 1000


def test_what_came_of_a_pull_that_failed_stays(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", PARTS)
    hub.faults += [Fault(), Fault(end_at=20_000), *[Fault(status=503)] * 8]
    with pytest.raises(HubError, match="gave up"):
        puller("o/n")
    (shelf,) = puller.store.shelves()
    begun = shelf.unfinished
    assert shelf.manifest is None
    assert begun is not None
    assert shelf.present_bytes(begun) == 70_000
    before = hub.sent_bytes
    puller("o/n")
    assert hub.sent_bytes - before == 80_000
    listed = puller.of(Listed)[0]
    assert isinstance(listed, Listed)
    assert listed.present_bytes == 70_000
    assert shelf.unfinished is None


def test_a_half_pulled_commit_gives_its_files_to_the_next(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", PARTS)
    hub.faults += [Fault(), Fault(end_at=20_000), *[Fault(status=503)] * 8]
    with pytest.raises(HubError):
        puller("o/n")
    before = hub.sent_bytes
    hub.add("o/n", {**PARTS, "README.md": b"moved on"})
    shelf, held = puller("o/n")
    assert hub.sent_bytes - before == 80_000
    assert tree(shelf.folder) == {"manifest.json", *(f"{held.commit[:12]}/{path}" for path in PARTS)}


def test_a_file_that_was_lost_is_fetched_again(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", FOLDER)
    shelf, held = puller("o/n")
    (shelf.entry_of(held) / "model.safetensors").unlink()
    assert shelf.manifest is None
    assert find_pulled(puller.store, parse_name("o/n")) is None
    before = hub.sent_bytes
    puller("o/n")
    assert hub.sent_bytes - before == 70_000
    assert shelf.manifest == held


def test_too_little_room_is_said_before(hub: HubServer, puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/n", PARTS)
    monkeypatch.setattr(pull_module, "SPARE_BYTES", 1 << 60)
    with pytest.raises(
        StoreFailed, match=r"o/n:Q8_0: 1 MiB are to come, .* free: free some space, or set FORGEGATE_HOME"
    ):
        puller("o/n")
    assert hub.sent_bytes == 0


def test_weights_that_are_of_no_use_are_not_fetched(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", FOLDER)
    with pytest.raises(NoChoice, match="X is not for us"):
        puller("o/n", refusal=lambda config: f"{config['architectures'][0]} is not for us")  # type: ignore[arg-type]
    assert puller.store.shelves() == []
    assert hub.sent_bytes == len(FOLDER["config.json"])


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_manifest_that_cannot_be_used_is_as_none(is_damaged: bool, hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", FOLDER)
    shelf, held = puller("o/n")
    path = shelf.folder / "manifest.json"
    content = json.loads(path.read_bytes())
    content["files"][0]["path"] = "../../../../etc/passwd"
    path.write_text("{" if is_damaged else json.dumps(content))
    assert shelf.manifest is None
    puller("o/n")
    assert shelf.manifest == held


# Two at a time --------------------------------------------------------------------------------------------------------


def test_two_pulls_of_one_model_follow_each_other(
    hub: HubServer, store: Store, client_with: Callable[[str], HubClient]
) -> None:
    hub.add("o/n", PARTS)
    hub.rate_bytes_s = 400_000
    pullers = [Puller(client_with(""), store) for _ in range(2)]
    threads = [threading.Thread(target=puller, args=("o/n",)) for puller in pullers]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert hub.sent_bytes == 150_000
    assert pullers[1].of(Waiting) == [Waiting("o/n:Q8_0", os.getpid())]
    assert [event.is_new for event in pullers[1].of(Finished) if isinstance(event, Finished)] == [False]
    assert len(pullers[0].of(Stored)) == 3


def test_what_is_being_pulled_is_not_removed(hub: HubServer, puller: Puller) -> None:
    hub.add("o/n", FOLDER)
    shelf, _ = puller("o/n")
    with (
        shelf.locked(),
        pytest.raises(ModelInUse, match=rf"o/n:safetensors is being pulled \(pid {os.getpid()}\)"),
        shelf.locked(),
    ):
        pass


LEASE = """
import sys, time
from pathlib import Path
from backends.hub.names import parse_name
from backends.hub.pulled import find_pulled
from backends.hub.store import Store
shelf, held = find_pulled(Store(Path(sys.argv[1])), parse_name("o/n"))
lease = shelf.lease(held)
print("leased", flush=True)
time.sleep(60)
"""


def test_what_is_served_is_neither_removed_nor_tidied_away(hub: HubServer, puller: Puller, store: Store) -> None:
    hub.add("o/n", FOLDER)
    shelf, old = puller("o/n")
    with subprocess.Popen(
        [sys.executable, "-c", LEASE, str(store.root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "leased\n"
        hub.add("o/n", {**FOLDER, "tokenizer.json": b"{ }"})
        _, new = puller("o/n")
        assert puller.of(Kept) == [Kept(str(shelf.commit_folder(old)))]
        assert (shelf.entry_of(old) / "tokenizer.json").read_bytes() == b"{}"
        assert (shelf.entry_of(new) / "tokenizer.json").read_bytes() == b"{ }"
        with pytest.raises(ModelInUse, match="o/n:safetensors is served by a running gateway: stop that first"):
            shelf.remove()
        serving.kill()
    eventually(lambda: _removed(shelf))
    assert store.shelves() == []
    assert [path.name for path in store.root.iterdir()] == [".locks"]


def _removed(shelf: Shelf) -> bool:
    try:
        shelf.remove()
    except ModelInUse:
        return False
    return True


def test_a_lease_holds_only_what_is_there(hub: HubServer, puller: Puller, store: Store) -> None:
    hub.add("o/n", FOLDER)
    shelf, held = puller("o/n")
    path = shelf.entry_of(held) / "model.safetensors"
    by_path = store.lease_of(path)
    assert by_path is not None
    with pytest.raises(ModelInUse):
        shelf.require_unused()
    by_path.close()
    shelf.remove()
    assert shelf.lease(held) is None
    assert store.lease_of(path) is None
    assert store.lease_of(Path("/etc/passwd")) is None


def test_no_lease_on_what_is_removed_at_that_moment(
    hub: HubServer, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/n", FOLDER)
    shelf, held = puller("o/n")
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        shelf.remove()  # between the opening and the lock
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert shelf.lease(held) is None


def test_what_a_killed_removal_left_goes_with_the_next_pull(hub: HubServer, puller: Puller, store: Store) -> None:
    hub.add("o/n", FOLDER)
    (store.root / ".trash-0" / "x").mkdir(parents=True)
    puller("o/n")
    assert not (store.root / ".trash-0").exists()


# Which is meant -------------------------------------------------------------------------------------------------------


def test_of_what_is_here_the_usual_one_is_taken(hub: HubServer, puller: Puller, store: Store) -> None:
    quants = ("Q8_0", "Q4_K_M", "IQ1_S", "IQ1_M")
    hub.add("o/n", {f"m-{quant}.gguf": quant.encode() for quant in quants} | FOLDER)

    def found(name: str) -> str | None:
        pair = find_pulled(store, parse_name(name))
        return pair[1].label if pair else None

    assert found("o/n") is None
    puller("o/n:safetensors")
    assert found("o/n") == "safetensors"
    puller("o/n:IQ1_S")
    assert found("o/n") == "IQ1_S"
    puller("o/n:IQ1_M")
    with pytest.raises(
        NoChoice, match="may be several of the models on this disk: name one of them\n  o/n:IQ1_M\n  o/n:IQ1_S"
    ):
        found("o/n")
    puller("o/n:Q8_0")
    assert found("o/n") == "Q8_0"
    puller("o/n:Q4_K_M")
    assert found("O/N") == "Q4_K_M"
    assert found("o/n:q8_0") == "Q8_0"
    assert found("o/n:m-IQ1_S") == "IQ1_S"
    assert found("o/n:SafeTensors") == "safetensors"
    assert found("o/n:Q5_0") is None
    assert found("o/n@v2") is None
    assert found("o/other") is None
