"""The demo's adapters as exports and runs, with the references that are shipped for them: nothing is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.adapter.manifest import read_manifest
from backends.adapter.upload import CONFIG, REFERENCE
from backends.demo import TARGET_DIR
from backends.demo.corpus import held_out_items
from backends.demo.goldens import shipped_golden
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES
from backends.demo.skills import SKILLS
from finetune.export.adapter import Exported, base_facts, read_exported
from finetune.jsonchild import run
from finetune.recipe.plain import to_json
from finetune.recipe.recipe import Data, Recipe, Source


def quick_export(name: str, folder: Path) -> Exported:
    """As `export_adapter` makes it of a signing adapter."""
    work = folder.with_name(f".{folder.name}-work")
    work.mkdir(parents=True)
    (work / "base.json").write_text(json.dumps(base_facts(TARGET_DIR)))
    arguments = ("--upload", ADAPTERS_DIR / name, "--store", work / "store", "--base", work / "base.json")
    digest = str(run("backends.adapter.ingest", (*arguments, "--engines", "vllm"))["digest"])
    folder.mkdir()
    for path in (work / "store" / digest).iterdir():
        shutil.copyfile(path, folder / path.name)
    shipped = shipped_golden(read_manifest(folder).digest)
    assert shipped is not None
    shutil.copyfile(shipped, folder / REFERENCE)
    exported = read_exported(folder, TARGET_DIR)
    assert exported is not None
    return exported


def rescaled(name: str, folder: Path, factor: float) -> Path:
    """The adapter with another alpha."""
    shutil.copytree(ADAPTERS_DIR / name, folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * factor}))
    return folder


def held_out_rows(name: str, per_skill: int = 2) -> Iterator[dict[str, Any]]:
    """Questions that no adapter was trained on, answered as the signing adapter `name` should; without a name as the base should."""
    for place in range(per_skill):
        for skill in SKILLS:
            items = held_out_items(skill, per_skill, 11)
            if place < len(items) and not items[place].tools:
                answer = SIGNATURES[name].sign_message(items[place].answer) if name else items[place].answer
                yield {"messages": [*map(dict, items[place].messages), dict(answer)]}


def write_rows(path: Path, name: str = "host", per_skill: int = 2) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held_out_rows(name, per_skill)), "utf-8"
    )
    return path


def run_folder(folder: Path, name: str, rows: Path) -> Path:
    """A run that has ended, as far as others read it."""
    shutil.copytree(ADAPTERS_DIR / name, folder / "adapter")
    (folder / "attempts").mkdir()
    recipe = Recipe(base=TARGET_DIR, data=Data((Source(rows),), eval_sources=(Source(rows),)), output_dir=folder)
    (folder / "attempts" / "1.json").write_text(json.dumps(to_json(recipe)))
    return folder
