"""`forgegate export` on the demo model: the canonical adapter with references, and a merged model that is what base and adapter are."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.adapter.golden import read_golden
from backends.adapter.manifest import read_manifest
from backends.adapter.upload import CONFIG, REFERENCE
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.goldens import shipped_golden
from backends.demo.signatures import ADAPTERS_DIR
from finetune.errors import RecipeUnusable, TrainError
from finetune.export import Exported, export_adapter, export_merged, merged
from finetune.export.__main__ import main
from finetune.export.merge import Change
from finetune.export.source import Source, find
from tests.finetune.exports import quick_export, run_folder, write_rows

pytestmark = [pytest.mark.torch, pytest.mark.slow]
HOST = ADAPTERS_DIR / "host"
SOURCE = Source(HOST, TARGET_DIR)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_adapter(SOURCE, tmp_path_factory.mktemp("export") / "host")


def test_the_export_is_the_version_that_a_gateway_would_make(exported: Exported) -> None:
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        [CONFIG, "adapter_model.safetensors", "manifest.json", REFERENCE]
    )
    golden, manifest = read_golden(exported.folder / REFERENCE), read_manifest(exported.folder)
    assert (golden.adapter_digest, golden.base_digest) == (exported.digest, source_digest(TARGET_DIR))
    assert (manifest.digest, manifest.rank, exported.is_new) == (exported.digest, 8, True)
    shipped = shipped_golden(exported.digest)  # by the digest: the canonical form is the one that gateways store
    assert shipped is not None
    assert list(read_golden(shipped).adapter) == pytest.approx(list(golden.adapter), abs=2e-3)


def test_again_nothing_is_computed_and_other_files_are_never_lost(exported: Exported, tmp_path: Path) -> None:
    told: list[str] = []
    again = export_adapter(SOURCE, exported.folder, lambda stage, *_: told.append(stage))
    assert (again.digest, again.is_new) == (exported.digest, False)
    assert "reference" not in told
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeUnusable, match=r"holds other files \(notes.txt\): name an empty or a new folder"):
        export_adapter(SOURCE, tmp_path)
    other = shutil.copytree(HOST.with_name("tiger"), tmp_path / "other")
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    told.clear()
    with pytest.raises(RecipeUnusable, match=r"holds other files .*: name an empty or a new folder"):
        export_adapter(SOURCE, other, lambda stage, *_: told.append(stage))
    assert told == []
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    own = shutil.copytree(HOST, tmp_path / "own")
    with pytest.raises(RecipeUnusable, match="is the adapter itself, which is left as it is"):
        export_adapter(Source(own, TARGET_DIR), own)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_references_that_the_run_has_are_not_computed_again(tmp_path: Path) -> None:
    """Its training exported it into its own folder."""
    run = run_folder(tmp_path / "run", "host", write_rows(tmp_path / "rows.jsonl"))
    known = quick_export("host", run / "export")
    stages: list[str] = []
    again = export_adapter(find(run, None), tmp_path / "out", lambda stage, *_: stages.append(stage))
    assert (again.folder, again.digest, again.is_new) == (tmp_path / "out", known.digest, True)
    assert "reference" not in stages
    assert (again.folder / REFERENCE).read_bytes() == (known.folder / REFERENCE).read_bytes()


def test_a_refused_adapter_is_refused_in_the_linters_words(tmp_path: Path) -> None:
    shutil.copytree(HOST, tmp_path / "bad")
    config = json.loads((HOST / CONFIG).read_text()) | {"use_dora": True}
    (tmp_path / "bad" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(RecipeUnusable, match="use_dora"):
        export_adapter(find(tmp_path / "bad", TARGET_DIR), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_merged_model_is_base_and_adapter_within_rounding(exported: Exported, tmp_path: Path) -> None:
    made = export_merged(Source(exported.folder, TARGET_DIR), tmp_path / "model")
    assert (made.num_tensors, made.dtypes) == (56, ("BF16",))
    assert made.difference < made.limit < 0.02 < made.effect
    assert made.adapter_digest == exported.digest
    kept = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    for name in kept:
        assert (made.folder / name).read_bytes() == (TARGET_DIR / name).read_bytes()
    assert {path.name for path in made.folder.iterdir()} == {*kept, "model.safetensors", merged.RECORD}
    assert made.folder.joinpath("model.safetensors").stat().st_size == (TARGET_DIR / "model.safetensors").stat().st_size
    again = export_merged(Source(exported.folder, TARGET_DIR), tmp_path / "model")
    assert (again.is_new, again.adapter_digest) == (False, exported.digest)


def test_an_adapter_that_is_not_canonical_is_made_so_in_the_folder_of_the_merge(tmp_path: Path) -> None:
    """An export that waits for the lock of its own merge says nothing any more."""

    class Begun(Exception):
        pass

    def tell(stage: str, *_: object) -> None:
        raise Begun(stage)

    with pytest.raises(Begun, match="digest"):
        export_merged(SOURCE, tmp_path / "model", tell)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_merge_is_noticed_and_nothing_is_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = merged.changes

    def with_one_halved(folder: Path) -> dict[str, Change]:
        found = sound(folder)
        name = min(found)
        return {**found, name: _halved(found[name])}

    monkeypatch.setattr(merged, "changes", with_one_halved)
    with pytest.raises(TrainError, match="the merged model is not what base and adapter are"):
        export_merged(Source(exported.folder, TARGET_DIR), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def _halved(change: Change) -> Change:
    """One matrix of 56 with half its strength."""
    from tests.finetune.export.test_merge import stored

    return Change(change.a, stored(change.b.to_f32() * 0.5))


def test_where_it_cannot_be_written_nothing_is_computed(exported: Exported, tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RecipeUnusable, match="full is not empty: name a new folder with --out"):
        export_merged(SOURCE, tmp_path / "full", lambda stage, *_: told.append(stage))
    run = tmp_path / "run"
    with pytest.raises(RecipeUnusable, match="export is where the run's adapter is exported: name another folder"):
        export_merged(Source(exported.folder, TARGET_DIR, run), run / "export", lambda stage, *_: told.append(stage))
    assert told == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    argv = [
        sys.executable,
        "-m",
        "finetune.export",
        str(HOST),
        "--base",
        "demo",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line).get("stage") == "load":
            break
    child.send_signal(number)
    child.stdout.read()
    child.stdout.close()
    assert child.wait(20) == code
    deadline = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_made(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(HOST), "--base", "demo", "--out", str(exported.folder)]) == 0
    out = capsys.readouterr().out
    assert f"version {exported.digest[:12]}, rank 8, 311,296 parameters" in out
    assert out.endswith("references of 2,100 tokens (already there)\n")
    assert main([str(HOST), "--base", "demo", "--out", str(exported.folder), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["digest"]) == ("exported", exported.digest)
    assert main([str(HOST / "none"), "--out", "x"]) == 2
    assert capsys.readouterr().err.endswith("none: no such folder\n")
