"""The child's contract; whole or absent, also when it is killed."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.adapter import manifest as manifests
from backends.adapter.gguf import GGUF
from backends.adapter.manifest import VersionUnusable
from backends.adapter.store import Store
from tests.backends.adapter.faulty import HOST
from tests.backends.adapter.ingesting import Ingester, whole

ADAPTERS = HOST.parent
ROOT = Path(__file__).resolve().parents[3]


def argv_of(upload: Path, store: Path, base: Path, engines: str = "llamacpp,vllm") -> list[str]:
    paths = ["--upload", str(upload), "--store", str(store), "--base", str(base)]
    return [sys.executable, "-m", "backends.adapter.ingest", *paths, "--engines", engines]


def test_the_child_tells_stages_then_what_it_stored(base_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        argv_of(HOST, tmp_path / "store", base_file), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event.get("stage") for event in events] == ["read", "lint", "canonical", "convert", "store", None]
    last = events[-1]
    assert last.keys() == {"event", "digest", "is_new", "manifest", "notes", "seconds"}
    assert (last["event"], last["is_new"], last["notes"]) == ("stored", True, [])
    assert last["seconds"].keys() == {"read", "lint", "canonical", "convert", "store"}
    version = tmp_path / "store" / last["digest"]
    assert (
        manifests.verify(version).as_json() == last["manifest"] == json.loads((version / "manifest.json").read_text())
    )
    assert version.stat().st_mode & 0o777 == 0o555


def test_the_manifest_tells_identity_and_origin(ingester: Ingester) -> None:
    told = ingester(HOST).last["manifest"]
    base = json.loads(ingester.base.read_text())
    assert told["base"]["source_digest"] == base["source_digest"]
    assert told["base"]["template_digest"] == base["template_digest"]
    assert (told["rank"], told["num_modules"], told["layers"]) == (8, 56, list(range(8)))
    assert told["targets"] == sorted(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    uploaded = told["uploaded"]
    assert (uploaded["rank"], uploaded["alpha"], uploaded["dtypes"]) == (8, 16.0, ["F16"])
    assert (uploaded["peft_version"], uploaded["base_model"]) == ("0.21.2", "forgegate-demo-target")
    assert uploaded["files"] == {path.name: manifests.file_digest(path) for path in HOST.iterdir()}


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("{", "cannot be read"),
        ('{"name": "x", "source_digest": "a", "template_digest": "b"}', "neither the base model's folder nor"),
        ('{"name": "x", "source_digest": "a", "template_digest": "b", "folder": "/nowhere"}', "/nowhere"),
        ('{"name": "x", "source_digest": "a", "template_digest": "b", "gguf": "/nowhere.gguf"}', "/nowhere.gguf"),
    ],
)
def test_a_base_that_cannot_be_read_is_the_environments_fault(
    base: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base.json").write_text(base)
    told = Ingester(tmp_path / "base.json", tmp_path / "store", capsys)(HOST)
    assert (told.code, told.last["event"]) == (3, "failed")
    assert words in told.last["message"]


def test_an_upload_that_is_not_there(ingester: Ingester, tmp_path: Path) -> None:
    told = ingester(tmp_path / "nothing.tar")
    assert (told.code, told.last["event"]) == (3, "failed")
    assert "nothing.tar: No such file" in told.last["message"]


def test_a_store_that_cannot_be_written(base_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Ingester(base_file, Path("/proc/nowhere"), capsys)(HOST)
    assert (told.code, told.last["event"]) == (3, "failed")
    assert "/proc/nowhere" in told.last["message"]


def test_a_version_stored_for_vllm_gets_its_gguf_when_llamacpp_wants_it(ingester: Ingester) -> None:
    first = ingester(HOST, engines="vllm").last
    assert first["manifest"]["attachments"] == {}
    second = ingester(HOST, engines="llamacpp").last
    assert (second["digest"], second["is_new"]) == (first["digest"], False)
    assert Store(ingester.store).attachment(first["digest"], GGUF) is not None
    assert second["manifest"]["attachments"].keys() == {GGUF}
    assert ingester.left() == whole(first["digest"])


def test_a_damaged_gguf_is_made_again(ingester: Ingester) -> None:
    digest = ingester(HOST).last["digest"]
    path = ingester.store / digest / GGUF
    good = path.read_bytes()
    path.write_bytes(good[:-4] + b"oops")
    assert Store(ingester.store).attachment(digest, GGUF) is None
    assert ingester(HOST).code == 0
    assert path.read_bytes() == good


def test_a_damaged_version_is_not_passed_off_as_stored(ingester: Ingester) -> None:
    digest = ingester(HOST).last["digest"]
    path = ingester.store / digest / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    told = ingester(HOST)
    assert (told.code, told.last["event"]) == (3, "failed")
    assert "not those that were stored" in told.last["message"]
    with pytest.raises(VersionUnusable):
        Store(ingester.store).find(digest)


def test_a_version_is_removed_whole(ingester: Ingester) -> None:
    digest = ingester(HOST).last["digest"]
    Store(ingester.store).remove(digest)
    Store(ingester.store).remove(digest)
    assert ingester.left() == []
    assert Store(ingester.store).find(digest) is None


def test_a_dead_ones_work_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead, alive = tmp_path / ".work-dead", tmp_path / ".work-alive"
    for folder in (dead, alive):
        (folder / "version").mkdir(parents=True)
    fd = os.open(alive, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    with store.working() as work:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, work.folder.name])
    os.close(fd)
    store.sweep()
    assert list(tmp_path.iterdir()) == []


def _store_one(argv: list[str]) -> bool:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return bool(json.loads(done.stdout.splitlines()[-1])["is_new"])


def test_of_processes_that_race_one_stores_it(base_file: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        news = pool.map(_store_one, [argv_of(HOST, tmp_path / "store", base_file)] * 3)
    assert sum(news) == 1
    [digest] = Store(tmp_path / "store").versions()
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [digest]
    manifests.verify(tmp_path / "store" / digest)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_points_it_leaves_versions_whole_or_absent(seed: int, base_file: Path, tmp_path: Path) -> None:
    draw, store = random.Random(seed), Store(tmp_path / "store")
    num_left, num_whole = 0, 0
    for _ in range(15):
        kill_at_work(argv_of(ADAPTERS / draw.choice(["host", "pilot", "tiger"]), store.root, base_file), draw)
        num_left += len(list(store.root.glob(".work-*")))
        for digest in store.versions():
            check_whole(store, digest)
            num_whole += 1
            shutil.rmtree(store.version(digest))
    assert num_left > 5, "few kills hit it at work"
    assert num_whole > 0, "no version was ever stored"
    digests = {_digest_of(argv_of(ADAPTERS / name, store.root, base_file)) for name in ("host", "pilot", "tiger")}
    assert sorted(path.name for path in store.root.iterdir()) == sorted(digests)


def kill_at_work(argv: list[str], draw: random.Random) -> None:
    """Some milliseconds after it told of a stage, or of its end."""
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(draw.randint(1, 6)):
            child.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.008))
        child.kill()


def check_whole(store: Store, digest: str) -> None:
    manifest = store.find(digest)
    assert manifest is not None
    assert manifest.attachments.keys() == {GGUF}
    assert store.attachment(digest, GGUF) is not None


def _digest_of(argv: list[str]) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout.splitlines()[-1])["digest"])
