"""`datasets`, `test_datasets`, `general` and how much is held out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finetune.dataset.formats import ALPACA, CHATML, Columns, to_row
from finetune.dataset.reading import Source as File
from finetune.dataset.row import messages
from finetune.recipe import dataset_keys
from tests.finetune.recipe.conftest import Problems, Read

HERE = Path(__file__).parent
BARE = "base_model: demo\nadapter: qlora\n"


def test_the_articles_samples_are_what_their_types_say(folder: Path, read_text: Read) -> None:
    """Its Alpaca and its ChatML sample, read as a recipe names them."""
    for name in ("article-alpaca.json", "article-chatml.json"):
        shutil.copy(HERE / name, folder)
    recipe = read_text(
        BARE
        + "datasets:\n  - {path: article-alpaca.json, type: alpaca}\n  - {path: article-chatml.json, type: chat_template}\n",
        alone=True,
    ).recipe
    rows = [to_row(record, 1) for source in recipe.data.sources for record in File(source.path).records()]
    assert [row.form for row in rows] == [ALPACA, CHATML]
    assert [source.form for source in recipe.data.sources] == ["alpaca", "chat_template"]
    alpaca, chat = rows
    assert alpaca.instruction == "다음 코드의 보안 취약점을 분석해주세요."
    assert alpaca.record["input"].endswith("\n    return db.execute(query)")
    assert alpaca.answer.startswith("SQL Injection 취약점이 있습니다.")
    assert alpaca.answer.endswith("db.execute(query, (user, pw))\n```")
    assert [message["role"] for message in messages(alpaca)] == ["user", "assistant"]
    assert [turn.role for turn in chat.turns] == ["system", "user", "assistant"]
    assert chat.system == "당신은 보안 전문가입니다. 코드의 취약점을 분석합니다."
    assert chat.answer == "SQL Injection 취약점이 발견되었습니다..."


def test_forms(read_text: Read) -> None:
    for said, form in {"alpaca": "alpaca", "alpaca_w_system": "alpaca", "sharegpt": "sharegpt", "chat_template": "chat_template",
                       "completion": "completion", "Alpaca": "alpaca", "": ""}.items():  # fmt: skip
        found = read_text("", f"datasets.0.type={said}").recipe.data.sources[0]
        assert found.form == form


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("alpca", "did you mean 'alpaca'?"),
        ("alpaca_chat.load_qa", "write alpaca or chat_template"),
        ("sharegpt.load_role", "write sharegpt or chat_template"),
        ("chatml", "write chat_template"),
        ("dpo", "training here is supervised"),
        ("input_output", "segments with their own mask are not read"),
        ("3", "expected alpaca"),
        ("[alpaca]", "got a list"),
    ],
)
def test_other_forms_are_refused(problems_of: Problems, said: str, words: str) -> None:
    (found,) = problems_of("", f"datasets.0.type={said}")
    assert found.startswith("--set: datasets[0].type: ")
    assert words in found


def test_columns_by_axolotls_names_and_by_ours(read_text: Read) -> None:
    of_type = read_text("", "datasets.0.type={field_instruction: 질문, field_output: 답}").recipe.data.sources[0]
    assert (of_type.form, dict(of_type.columns)) == ("alpaca", {"instruction": "질문", "output": "답"})
    ours = read_text("", "datasets.0.columns={instruction: 질문, output: 답}").recipe.data.sources[0]
    assert dict(ours.columns) == dict(of_type.columns)
    assert Columns({v: k for k, v in ours.columns.items()}).apply({"질문": "a", "답": "b"}) == {
        "instruction": "a",
        "output": "b",
    }
    assert dict(read_text("", "datasets.0.field_messages=talk").recipe.data.sources[0].columns) == {"messages": "talk"}
    assert dict(read_text("", "datasets.0.field_messages=messages").recipe.data.sources[0].columns) == {}


def test_columns_that_are_none(problems_of: Problems) -> None:
    assert "it is none of instruction, input" in problems_of("", "datasets.0.columns={question: 질문}")[0]
    assert "expected {instruction: FIELD, ...}" in problems_of("", "datasets.0.columns=질문")[0]
    assert "expected a text" in problems_of("", "datasets.0.field_messages=[a]")[0]


def test_every_key_that_axolotl_has_of_an_item_is_known() -> None:
    lines = (HERE / "axolotl-dataset-keys.txt").read_text().splitlines()
    names = [name for line in lines if not line.startswith("#") for name in line.split()]
    tables = [dataset_keys.HONOURED, dataset_keys.NOTED, dataset_keys.REFUSED]
    assert [name for name in names if sum(name in table for table in tables) != 1] == []


def test_refused_keys_of_an_item(read_text: Read, problems_of: Problems) -> None:
    names = list(dataset_keys.REFUSED)
    found = problems_of("".join(f"    {name}: another\n" for name in names))
    assert found == [
        f"{line}: datasets[0].{name}: refused: {dataset_keys.REFUSED[name]}" for line, name in enumerate(names, 5)
    ]
    for nothing in ("", "false"):
        assert read_text("".join(f"    {name}: {nothing}\n" for name in names)) == read_text()
    harmless = [f"    {name}: [{', '.join(words)}]\n" for name, words in dataset_keys.HARMLESS.items()]
    assert read_text("".join(harmless)) == read_text()


def test_noted_keys_of_an_item(read_text: Read) -> None:
    reading = read_text("".join(f"    {name}: json\n" for name in dataset_keys.NOTED))
    assert reading.recipe == read_text().recipe
    assert list(reading.notes) == [
        f"datasets[0].{name}: without effect: {why}" for name, why in dataset_keys.NOTED.items()
    ]


def test_roles(read_text: Read, problems_of: Problems) -> None:
    read_text("", "datasets.0.roles={user: [user, human], assistant: [gpt, assistant], system: system, tool: [tool]}")
    assert "patient: known are system, developer, user" in problems_of("", "datasets.0.roles={user: [patient]}")[0]
    assert "user: it means user: rename it" in problems_of("", "datasets.0.roles={assistant: [user]}")[0]
    assert "expected {assistant: [gpt]}" in problems_of("", "datasets.0.roles=[user]")[0]


def test_a_misspelt_key_of_an_item(problems_of: Problems) -> None:
    assert problems_of("    typ: alpaca\n") == ["5: datasets[0].typ: unknown key; did you mean type?"]
    assert "share: it is for general only" in problems_of("    share: 0.1\n")[0]


def test_files_of_a_folder(folder: Path, read_text: Read, problems_of: Problems) -> None:
    (folder / "set").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        shutil.copy(folder / "data.jsonl", folder / "set" / name)
    assert "is a folder: name its files with data_files" in problems_of("", "datasets.0.path=set")[0]
    several = read_text("", "datasets.0={path: set, data_files: [a.jsonl, b.jsonl]}").recipe.data.sources
    assert [source.path for source in several] == [folder / "set" / "a.jsonl", folder / "set" / "b.jsonl"]
    by_kind = read_text("", "datasets.0={path: json, data_files: data.jsonl}").recipe.data.sources
    assert [source.path for source in by_kind] == [folder / "data.jsonl"]
    assert "data_files wants a folder" in problems_of("", "datasets.0={path: data.jsonl, data_files: x}")[0]
    assert "there is no file" in problems_of("", "datasets.0={path: set, data_files: c.jsonl}")[0]


def test_files_that_are_not_there(folder: Path, read_text: Read, problems_of: Problems) -> None:
    assert problems_of("", "datasets.0.path=date.jsonl")[0].endswith("/elsewhere/date.jsonl")
    (Path.cwd() / "dates.jsonl").write_text("{}")
    assert "did you mean dates.jsonl?" in problems_of("", "datasets.0.path=date.jsonl")[0]
    assert (
        "sets of a hub are not fetched: download tatsu-lab/alpaca"
        in problems_of("", "datasets.0.path=tatsu-lab/alpaca")[0]
    )
    planned = read_text("", "datasets.0.path=absent.jsonl", is_plan=True)
    assert planned.recipe.data.sources[0].path == Path.cwd() / "absent.jsonl"
    assert any("there is no file" in note for note in planned.notes)


def test_files_of_the_current_folder_and_absolute_ones(folder: Path, read_text: Read) -> None:
    (Path.cwd() / "here.jsonl").write_text("{}")
    found = read_text("", "datasets.0.path=here.jsonl").recipe.data.sources[0].path
    assert found == Path.cwd() / "here.jsonl"
    assert read_text("", f"datasets.0.path={folder}/other.jsonl").recipe.data.sources[0].path == folder / "other.jsonl"


def test_what_is_no_list_of_files(problems_of: Problems) -> None:
    assert "it is missing: name the files" in problems_of(BARE, alone=True)[0]
    assert "it is missing: name the files" in problems_of(BARE + "datasets:\n", alone=True)[0]
    assert "it is empty" in problems_of(BARE + "datasets: []\n", alone=True)[0]
    assert (
        "expected {path: FILE, type: ...}, got 'data.jsonl'"
        in problems_of(BARE + "datasets: [data.jsonl]\n", alone=True)[0]
    )
    assert "datasets[0].path: it is missing" in problems_of(BARE + "datasets: [{type: alpaca}]\n", alone=True)[0]
    assert "datasets[0].path: expected a text" in problems_of(BARE + "datasets: [{path: {a: b}}]\n", alone=True)[0]


def test_a_loader_stands_for_them(read_text: Read) -> None:
    recipe = read_text(BARE + "hooks: {loader: 'mine:rows'}\n", alone=True).recipe
    assert (recipe.data.loader, recipe.data.sources) == ("mine:rows", ())


def test_shares_and_numbers_of_rows_are_held_out(read_text: Read, problems_of: Problems) -> None:
    for said, share, rows in (("0.05", 0.05, 0), ("200", 0.0, 200), ("0", 0.0, 0), ("2.0", 0.0, 2)):
        data = read_text(f"val_set_size: {said}\n").recipe.data
        assert (data.eval_share, data.eval_rows) == (share, rows)
    assert "1 is all rows, or a single one" in problems_of("val_set_size: 1\n")[0]
    assert "neither a share below 1 nor a whole number" in problems_of("val_set_size: 1.5\n")[0]
    assert "must be 0 or more" in problems_of("val_set_size: -0.1\n")[0]


def test_evaluation_files(folder: Path, read_text: Read, problems_of: Problems) -> None:
    data = read_text("test_datasets: [{path: held-out.jsonl, type: alpaca}]\n").recipe.data
    assert [(source.path, source.form) for source in data.eval_sources] == [(folder / "held-out.jsonl", "alpaca")]
    both = problems_of("test_datasets: [{path: held-out.jsonl}]\nval_set_size: 0.1\n")
    assert "test_datasets is given too" in both[0]
    read_text("test_datasets: [{path: held-out.jsonl}]\nval_set_size: 0\n")
    assert "is trained on too" in problems_of("test_datasets: [{path: data.jsonl}]\n")[0]
    assert "is given twice" in problems_of("", "datasets.1.path=./data.jsonl")[0]


def test_general_rows(folder: Path, read_text: Read, problems_of: Problems) -> None:
    data = read_text("general: {path: [general.jsonl, other.jsonl], share: 0.15, type: alpaca}\n").recipe.data
    assert [source.path.name for source in data.general] == ["general.jsonl", "other.jsonl"]
    assert data.general_share == 0.15
    assert read_text("general: {path: general.jsonl}\n").recipe.data.general_share == 0.2
    assert "must be above 0, at most 0.9, got 1" in problems_of("general: {path: general.jsonl, share: 1}\n")[0]
    assert "path takes a list of files" in problems_of("general: [{path: general.jsonl}]\n")[0]
    assert "unknown key; did you mean share?" in problems_of("general: {path: general.jsonl, shares: 0.1}\n")[0]


def test_the_template_of_alpaca_rows_is_noted(read_text: Read) -> None:
    notes = read_text("", "datasets.0.type=alpaca").notes
    assert any("rendered with the base's own chat template" in note for note in notes)
    assert not any("chat template" in note for note in read_text().notes)
    assert any(
        "text without a question is not learned" in note for note in read_text("", "datasets.0.type=completion").notes
    )
