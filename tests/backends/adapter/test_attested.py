"""References that come with an upload: taken where they are the version's own, marked as the publisher's, left out otherwise."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from backends.adapter.attested import PUBLISHER
from backends.adapter.golden import Golden, from_bytes, read_golden, to_bytes
from backends.adapter.manifest import MANIFEST, read_manifest
from backends.adapter.pack import pack
from backends.adapter.store import Store
from backends.adapter.upload import CONFIG, REFERENCE, WEIGHTS, Limits, read_folder
from backends.artifacts import read_json
from backends.demo import TARGET_DIR
from backends.demo.goldens import shipped_golden
from tests.backends.adapter.faulty import HOST
from tests.backends.adapter.ingesting import Ingester


@pytest.fixture
def ingester(base_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ingester:
    """With the demo model's own chat template, for which references are shipped."""
    template = read_json(TARGET_DIR / "tokenizer_config.json")["chat_template"]
    told = {
        **json.loads(base_file.read_text()),
        "template_digest": f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
    }
    (tmp_path / "base.json").write_text(json.dumps(told))
    return Ingester(tmp_path / "base.json", tmp_path / "store", capsys)


@pytest.fixture
def upload(tmp_path: Path, ingester: Ingester) -> Path:
    """A version as an export writes it, with the reference that is shipped for it."""
    folder = tmp_path / "export"
    digest = ingester(HOST, engines="vllm").last["digest"]
    shutil.copytree(ingester.store / digest, folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    Store(ingester.store).remove(digest)
    shipped = shipped_golden(digest)
    assert shipped is not None
    shutil.copyfile(shipped, folder / REFERENCE)
    return folder


def rewritten(upload: Path, **changes: object) -> Golden:
    golden = dataclasses.replace(read_golden(upload / REFERENCE), **changes)  # type: ignore[arg-type]
    (upload / REFERENCE).write_bytes(to_bytes(golden))
    return golden


def test_it_becomes_the_versions_own_as_the_publishers_word(ingester: Ingester, upload: Path) -> None:
    last = ingester(upload).last
    assert (last["event"], last["notes"]) == ("stored", [])
    attached = Store(ingester.store).attachment(last["digest"], REFERENCE)
    assert attached is not None
    golden, given = read_golden(attached), read_golden(upload / REFERENCE)
    assert (golden.attested_by, given.attested_by) == (PUBLISHER, "")
    assert (golden.adapter_digest, list(golden.adapter)) == (last["digest"], list(given.adapter))


def test_a_version_that_has_none_gets_it_and_one_that_has_keeps_it(ingester: Ingester, upload: Path) -> None:
    digest = ingester(HOST).last["digest"]
    store = Store(ingester.store)
    assert store.attachment(digest, REFERENCE) is None
    assert ingester(upload).last["is_new"] is False
    first = store.attachment(digest, REFERENCE)
    assert first is not None
    content = first.read_bytes()
    rewritten(upload, made_by={"torch": "another"})
    ingester(upload)
    assert first.read_bytes() == content
    assert store.find(digest) is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_digest": f"sha256:{'0' * 64}"}, "it was made on a base of 000000000000"),
        ({"adapter_digest": "1" * 64}, "it was made for the version 111111111111"),
    ],
)
def test_anothers_is_left_out_and_that_is_told(
    ingester: Ingester, upload: Path, changes: dict[str, str], words: str
) -> None:
    rewritten(upload, **changes)
    last = ingester(upload).last
    (note,) = last["notes"]
    assert note.startswith("the reference that came along is left out: ")
    assert words in note
    assert Store(ingester.store).attachment(last["digest"], REFERENCE) is None


def test_a_damaged_one_is_left_out(ingester: Ingester, upload: Path) -> None:
    (upload / REFERENCE).write_bytes(b"\0" * 100)
    (note,) = ingester(upload).last["notes"]
    assert "no whole safetensors file" in note


def test_another_chat_template_makes_another_version_of_the_same_scores(ingester: Ingester, upload: Path) -> None:
    base = json.loads(ingester.base.read_text())
    ingester.base.write_text(json.dumps({**base, "template_digest": f"sha256:{'7' * 64}"}))
    last = ingester(upload).last
    assert last["digest"] != read_manifest(upload).digest
    attached = Store(ingester.store).attachment(last["digest"], REFERENCE)
    assert attached is not None
    assert read_golden(attached).adapter_digest == last["digest"]
    (upload / MANIFEST).write_text("{")
    Store(ingester.store).remove(last["digest"])
    (note,) = ingester(upload).last["notes"]
    assert "the manifest beside it cannot be read" in note


def test_it_is_sent_along_and_has_a_limit_of_its_own(upload: Path, tmp_path: Path) -> None:
    assert [path.name for path, _ in pack(upload).files] == [CONFIG, WEIGHTS, REFERENCE, MANIFEST]
    (tmp_path / "taken").mkdir()
    taken = read_folder(upload, tmp_path / "taken", Limits(json_bytes=10_000))
    assert taken.sizes[REFERENCE] > 10_000


def test_who_attests_is_part_of_the_file(upload: Path) -> None:
    golden = read_golden(upload / REFERENCE)
    assert from_bytes(to_bytes(dataclasses.replace(golden, attested_by="x"))).attested_by == "x"
    assert to_bytes(golden) == (upload / REFERENCE).read_bytes()  # what is shipped stays byte for byte what it was
