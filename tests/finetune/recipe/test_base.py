"""What `base_model` may be, and what is no model to train on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import finetune
from backends.demo import TARGET_DIR
from backends.hub.listing import RemoteFile
from backends.hub.manifest import Manifest
from backends.hub.store import Store
from tests.finetune.recipe.conftest import Problems, Read

HUB = "meta-llama/Llama-3.1-8B-Instruct"
RECIPES = Path(finetune.__file__).parent / "recipes"


def recipe(base: object) -> str:
    return f"base_model: {base}\nadapter: qlora\ndatasets: [{{path: data.jsonl}}]\n"


def copy_of_demo(folder: Path, **config: Any) -> Path:
    shutil.copytree(TARGET_DIR, folder)
    content = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(content | config))
    return folder


def pull(
    home: Path, repo: str = HUB, *, revision: str = "", commit: str = "a" * 40, gguf: str = "", at: str = "2026-01-01"
) -> Path:
    """As `forgegate models pull` leaves it, by its own store and manifest."""
    shelf = Store(home / "models" / "hub").shelf(repo, gguf or "safetensors", revision)
    names = [f"{gguf}.gguf"] if gguf else [path.name for path in sorted(TARGET_DIR.iterdir())]
    sizes = {name: 3 if gguf else (TARGET_DIR / name).stat().st_size for name in names}
    files = tuple(RemoteFile(name, size, "sha256:0") for name, size in sizes.items())
    entry = f"{gguf}.gguf" if gguf else repo.partition("/")[2]
    manifest = Manifest(repo, gguf or "safetensors", revision, commit, "https://hub", entry, bool(gguf), files, at)
    place = shelf.entry_of(manifest)
    if gguf:
        place.parent.mkdir(parents=True)
        place.write_text("abc")
    else:
        shutil.copytree(TARGET_DIR, place)
    manifest.write(shelf.folder / "manifest.json")
    return place


def test_the_demo_model(read_text: Read) -> None:
    found = read_text(recipe("demo"), alone=True).recipe
    assert (found.base, found.base_name) == (TARGET_DIR, "demo")


def test_a_folder_beside_the_recipe_wins_over_the_current_one(folder: Path, read_text: Read) -> None:
    copy_of_demo(Path("model"))
    assert read_text(recipe("model"), alone=True).recipe.base == Path.cwd() / "model"
    copy_of_demo(folder / "model")
    assert read_text(recipe("./model"), alone=True).recipe.base == folder / "model"
    assert read_text(recipe(Path.cwd() / "model"), alone=True).recipe.base == Path.cwd() / "model"


def test_a_model_of_the_hub_that_was_pulled(folder: Path, read_text: Read) -> None:
    place = pull(folder.parent / "home")
    found = read_text(recipe(HUB), alone=True).recipe
    assert (found.base, found.base_name) == (place, HUB)
    assert read_text(recipe(HUB.lower()), alone=True).recipe.base == place


def test_revisions_of_it(folder: Path, read_text: Read, problems_of: Problems) -> None:
    home = folder.parent / "home"
    main, branch = pull(home), pull(home, revision="v2", commit="b" * 40)
    assert read_text(recipe(HUB), alone=True).recipe.base == main
    assert read_text(recipe(f"{HUB}@v2"), alone=True).recipe.base == branch
    assert read_text(recipe(HUB) + "model_revision: v2\n", alone=True).recipe.base == branch
    assert read_text(recipe(HUB) + f"revision_of_model: {'b' * 12}\n", alone=True).recipe.base == branch
    (found,) = problems_of(recipe(HUB) + "model_revision: v3\n", alone=True)
    assert f"`forgegate models pull {HUB}@v3`" in found


@pytest.mark.parametrize(
    ("base", "revision", "said"),
    [
        (f"{HUB}@v2", "v3", "4: model_revision: v3, and base_model names @v2: keep one of them"),
        (f"{HUB}@main", "v2", "4: model_revision: v2, and base_model names @main: keep one of them"),
        ("demo", "v2", "4: model_revision: v2: the base is no model of the hub, and has no revisions: leave it out"),
        ("model", "v2", "4: model_revision: v2: the base is no model of the hub, and has no revisions: leave it out"),
        (f"{HUB}:Q4_K_M", "", f"1: base_model: '{HUB}:Q4_K_M': a label names what is served; safetensors are trained on: write {HUB}"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_is_refused(
    folder: Path, problems_of: Problems, base: str, revision: str, said: str
) -> None:
    home = folder.parent / "home"
    pull(home), pull(home, revision="v2", commit="b" * 40), pull(home, revision="v3", commit="c" * 40)
    copy_of_demo(folder / "model")
    text = recipe(base) + (f"model_revision: {revision}\n" if revision else "")
    assert problems_of(text, alone=True) == [said]


def test_what_says_the_same_twice_is_taken(folder: Path, read_text: Read) -> None:
    home = folder.parent / "home"
    main, branch = pull(home), pull(home, revision="v2", commit="b" * 40)
    assert read_text(recipe(f"{HUB}@v2") + "model_revision: v2\n", alone=True).recipe.base == branch
    assert read_text(recipe(f"{HUB}:safetensors@v2"), alone=True).recipe.base == branch
    assert read_text(recipe(HUB) + "model_revision: main\n", alone=True).recipe.base == main


def test_one_that_was_not_pulled_says_how(problems_of: Problems) -> None:
    (found,) = problems_of(recipe(HUB), alone=True)
    assert found == f"1: base_model: {HUB!r} is no folder, and {HUB} has not been pulled: `forgegate models pull {HUB}`"
    (planned,) = problems_of(recipe("org/other"), alone=True, is_plan=True)
    assert planned == f"{found.replace(HUB, 'org/other')}; for a plan a folder with its config.json alone will do"


def test_a_plan_knows_the_shapes_of_the_shipped_recipes_bases(read_text: Read) -> None:
    for recipes in RECIPES.glob("*.yaml"):
        name = yaml.safe_load(recipes.read_text())["base_model"]
        found = read_text(recipe(name), alone=True, is_plan=True)
        assert (found.recipe.base / "config.json").is_file()
        assert found.recipe.base_name == name
        assert bool(found.notes) is (name != "demo")


def test_one_that_is_not_whole_was_not_pulled(folder: Path, problems_of: Problems) -> None:
    os.truncate(pull(folder.parent / "home") / "model.safetensors", 100)
    assert "has not been pulled" in problems_of(recipe(HUB), alone=True)[0]


def test_a_gguf_of_the_hub_is_for_serving(folder: Path, problems_of: Problems) -> None:
    pull(folder.parent / "home", gguf="Q4_K_M")
    (found,) = problems_of(recipe(HUB), alone=True)
    assert f"`forgegate models pull {HUB}:safetensors`" in found


def test_manifests_that_cannot_be_read_are_passed_over(folder: Path, read_text: Read) -> None:
    place = pull(folder.parent / "home")
    other = place.parents[2] / "other"
    other.mkdir()
    (other / "manifest.json").write_text("[1")
    assert read_text(recipe(HUB), alone=True).recipe.base == place


@pytest.mark.parametrize(
    ("method", "config"),
    [("awq", {"quantization_config": {"quant_method": "awq"}}), ("gptq", {"quantization_config": {"quant_method": "gptq"}}),
     ("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes"}})],
)  # fmt: skip
def test_a_quantised_model_is_refused(folder: Path, problems_of: Problems, method: str, config: dict[str, Any]) -> None:
    copy_of_demo(folder / "model", **config)
    (found,) = problems_of(recipe("model"), alone=True)
    assert f"is quantised ({method}): train on the full-precision model that it was made of" in found


def test_a_quantised_model_of_the_old_layout_too(folder: Path, problems_of: Problems) -> None:
    (copy_of_demo(folder / "model") / "quantize_config.json").write_text("{}")
    assert "is quantised (gptq)" in problems_of(recipe("model"), alone=True)[0]


def test_what_is_no_model(folder: Path, problems_of: Problems) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF")
    (folder / "weights.safetensors").write_bytes(b"x")
    for name, file in (("adapter", "adapter_config.json"), ("served", "a.gguf"), ("empty", "README.md")):
        (folder / name).mkdir()
        (folder / name / file).write_text("{}")
    said = {name: problems_of(recipe(name), alone=True)[0] for name in
            ("model.gguf", "weights.safetensors", "adapter", "served", "empty", "./absent", "absent")}  # fmt: skip
    assert "is a GGUF, which is for serving" in said["model.gguf"]
    assert "is a file: give the folder" in said["weights.safetensors"]
    assert "holds an adapter, not a model" in said["adapter"]
    assert "holds a GGUF, which is for serving" in said["served"]
    assert "holds no config.json" in said["empty"]
    assert "there is no folder" in said["./absent"]
    assert "there is no folder" in said["absent"]


def test_damaged_models_are_named(folder: Path, problems_of: Problems) -> None:
    for name, file in (("a", "config.json"), ("b", "model.safetensors"), ("c", "tokenizer.json")):
        path = copy_of_demo(folder / name) / file
        path.write_text("[1") if name == "a" else path.unlink()
    assert "not a JSON object" in problems_of(recipe("a"), alone=True)[0]
    assert "no *.safetensors file" in problems_of(recipe("b"), alone=True)[0]
    assert "no tokenizer in this folder" in problems_of(recipe("c"), alone=True)[0]


def test_a_plan_needs_the_configuration_only(folder: Path, read_text: Read, problems_of: Problems) -> None:
    (folder / "model").mkdir()
    shutil.copy(TARGET_DIR / "config.json", folder / "model")
    text = recipe("model") + "lora_target_modules: [q_proj, W_pack]\n"
    assert read_text(text, alone=True, is_plan=True).recipe.base == folder / "model"
    assert (
        "no *.safetensors file" in problems_of(text, alone=True)[0]
        or "no tokenizer" in problems_of(text, alone=True)[0]
    )


def test_classes_and_tokens_are_held_against_the_base(read_text: Read, problems_of: Problems) -> None:
    notes = read_text("model_type: LlamaForCausalLM\nspecial_tokens: {eos_token: <|im_end|>, pad_token: <|x|>}\n").notes
    assert any(note.startswith("special_tokens.pad_token: without effect") for note in notes)
    read_text("model_type: AutoModelForCausalLM\n")
    assert problems_of("model_type: MistralForCausalLM\n") == [
        "5: model_type: the base is LlamaForCausalLM, not MistralForCausalLM: leave it out"
    ]
    assert problems_of("special_tokens:\n  eos_token: <|eot_id|>\n") == [
        "6: special_tokens.eos_token: the base has '<|im_end|>', which engines go by: leave it out"
    ]
    assert "a longer vocabulary" in problems_of("special_tokens:\n  additional_special_tokens: [<a>]\n")[0]
    assert "unknown token" in problems_of("special_tokens: {start: a}\n")[0]
    assert "expected {pad_token: ...}" in problems_of("special_tokens: a\n")[0]


def test_a_length_beyond_the_base_is_noted(read_text: Read) -> None:
    assert not any(note.startswith("sequence_len") for note in read_text("sequence_len: 2048\n").notes)
    assert (
        "sequence_len: 4096 is more than the 2048 positions that the base was made for"
        in read_text("sequence_len: 4096\n").notes
    )
