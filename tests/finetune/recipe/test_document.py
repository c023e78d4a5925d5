"""The file itself: YAML, its lines, what is given twice, and `--set`."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.recipe.reading import read
from tests.finetune.recipe.conftest import SOUND, Problems, Read


def test_all_problems_are_reported_at_once_with_their_lines(problems_of: Problems) -> None:
    found = problems_of(
        "lora_rr: 8\nmicro_batch_size: 0\nlearning_rate: fast\ndeepspeed: zero3.json\nlora_r: 8\nlora_r: 16\n"
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["5", "lora_rr"], ["6", "micro_batch_size"], ["7", "learning_rate"], ["8", "deepspeed"], ["10", "lora_r"],
    ]  # fmt: skip
    assert "did you mean lora_r?" in found[0]
    assert found[1] == "6: micro_batch_size: must be 1 or more, got 0"
    assert "refused" in found[3]
    assert "given twice, first on line 9" in found[4]


def test_the_message_has_a_line_for_each(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text("adapter: qlora\nsequence_len: -1\n")
    with pytest.raises(RecipeUnusable) as refused:
        read(path)
    assert str(refused.value).splitlines() == list(refused.value.problems)
    assert refused.value.exit_code == 2
    assert all(problem.startswith(f"{path}:") for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: the recipe is empty: it needs at least base_model, datasets and adapter"),
        ("# nothing\n", "1: the recipe is empty: it needs at least base_model, datasets and adapter"),
        ("- a\n- b\n", "1: a recipe is keys and values, such as `lora_r: 16`; this is a list"),
        ("demo\n", "1: a recipe is keys and values, such as `lora_r: 16`; this is 'demo'"),
        ("lora_r:\t16\n", "1: a tab stands where YAML wants spaces"),
        ("datasets:\n\t- path: a\n", "2: a tab stands where YAML wants spaces"),
        ("a: [1\nb: 2\n", "2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "2: a second document begins here"),
        ("a: 'x\n", "2: not valid YAML"),
        ("seed: *other\n", "1: not valid YAML: found undefined alias"),
        ("a: \x00\n", "1: not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_one_sentence(problems_of: Problems, text: str, words: str) -> None:
    (found,) = problems_of(text, alone=True)
    assert found.startswith(words)


def test_other_encodings_and_missing_files_are_named(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes("# 학습\nbase_model: demo\n".encode("cp949"))
    with pytest.raises(RecipeUnusable, match="it is no UTF-8 text: save it as UTF-8"):
        read(path)
    with pytest.raises(RecipeUnusable, match=r"absent\.yaml: No such file"):
        read(folder / "absent.yaml")
    with pytest.raises(RecipeUnusable, match="Is a directory"):
        read(folder)


def test_a_byte_order_mark_and_windows_lines_are_read(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (SOUND + "lora_r: 8\n").replace("\n", "\r\n").encode())
    assert read(path).recipe.lora is not None
    path.write_bytes(b"\xef\xbb\xbf" + (SOUND + "lora_q: 8\n").replace("\n", "\r\n").encode())
    with pytest.raises(RecipeUnusable, match=r"recipe\.yaml:5: lora_q: unknown key"):
        read(path)


def test_keys_are_merged_by_anchors(read_text: Read, problems_of: Problems) -> None:
    recipe = read_text(
        "hooks: &own {loss: mine:loss}\ngeneral:\n  <<: {path: general.jsonl, share: 0.3}\n  share: 0.1\n"
    ).recipe
    assert recipe.data.general_share == 0.1
    assert recipe.steps.loss == "mine:loss"
    assert "merges keys and values" in problems_of("general:\n  <<: 3\n  path: general.jsonl\n")[0]


def test_a_bomb_of_aliases_ends(problems_of: Problems) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    found = problems_of("a0: &a0 [x]\n" + "\n".join(levels) + "\n")
    assert any("repeated too often by aliases" in problem for problem in found)


def test_a_list_that_holds_itself_ends(problems_of: Problems) -> None:
    assert any("nested too deeply" in problem for problem in problems_of("report_to: &a [*a]\n"))


def test_tags_and_keys_that_are_no_words(problems_of: Problems) -> None:
    assert problems_of("seed: !mine 3\n")[0].startswith("5: the tag !mine means nothing here")
    assert problems_of("seed: !!python/object:os.system 3\n")[0].startswith("5: the tag")
    assert "a key is a word" in problems_of("? [a, b]\n: 3\n")[0]


def test_set_takes_the_place_of_what_the_file_says(read_text: Read) -> None:
    recipe = read_text("lora_r: 16\n", "lora_r=8", "learning_rate=1e-5", "datasets.0.path=other.jsonl").recipe
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.steps.learning_rate) == (8, 1e-5)
    assert [source.path.name for source in recipe.data.sources] == ["other.jsonl"]


def test_set_adds_items_and_keys_that_are_not_there(read_text: Read) -> None:
    recipe = read_text(
        "", "datasets.1={path: other.jsonl, type: alpaca}", "general.path=general.jsonl", "general.share=0.1"
    ).recipe
    assert [source.form for source in recipe.data.sources] == ["", "alpaca"]
    assert recipe.data.general_share == 0.1


def test_set_to_nothing_is_not_given(read_text: Read) -> None:
    assert read_text("max_steps: 5\n", "max_steps=").recipe.steps.max_steps == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lora_r", "--set: 'lora_r' is not of the form key=value, for example --set lora_r=8"),
        ("=3", "--set: '=3' is not of the form key=value"),
        ("lora_rr=3", "--set: lora_rr: unknown key; did you mean lora_r?"),
        ("lora_r=many", "--set: lora_r: expected a whole number or auto, got 'many'"),
        ("datasets.7.path=x", "--set: datasets.7.path: 7 is no place in the recipe"),
        ("lora_r.deep=x", "--set: lora_r.deep: deep is no place in the recipe"),
        ("report_to=[a", "--set: report_to: not valid YAML"),
        ("hub_model_id=me/mine", "--set: hub_model_id: refused"),
    ],
)
def test_a_faulty_set_is_named_as_such(problems_of: Problems, override: str, words: str) -> None:
    (found,) = problems_of("lora_r: 16\n", override)
    assert found.startswith(words)


def test_faults_of_set_follow_those_of_the_file(problems_of: Problems) -> None:
    found = problems_of("lora_q: 1\n", "seed=x")
    assert [problem.split(":")[0] for problem in found] == ["5", "--set"]
