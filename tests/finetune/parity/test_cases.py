"""Held-out rows as training saw them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.demo import TARGET_DIR
from finetune.dataset.progress import Unwatched
from finetune.dataset.row import Row
from finetune.dataset.tokens import ModelTokens, Rendered
from finetune.errors import RecipeUnusable
from finetune.parity import cases
from finetune.parity.cases import Cases, choose
from finetune.parity.heldout import HeldOut, of_file, of_run
from finetune.recipe.plain import to_json
from finetune.recipe.recipe import Data, Recipe, Source
from finetune.training.reading import Reader

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def tokens() -> ModelTokens:
    return ModelTokens(TARGET_DIR)


def chat(*turns: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)], **more}


def rows_file(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def chosen(path: Path, tokens: ModelTokens, num: int = 10, context: int = 2048, is_literal: bool = True) -> Cases:
    with of_file(path) as held_out:
        return choose(held_out, tokens, num, context, is_literal)


def test_the_prompt_is_what_an_endpoint_renders_and_the_answer_what_the_loss_counts(
    tmp_path: Path, tokens: ModelTokens
) -> None:
    path = rows_file(tmp_path / "a.jsonl", chat("Hi", "Hello", "Bye", "See you"))
    (case,) = chosen(path, tokens).chosen
    assert tokens.text(case.prompt) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokens.text(case.ids[case.first :]) == "See you<|im_end|>"
    assert [message["content"] for message in case.messages] == ["Hi", "Hello", "Bye"]


def test_alpaca_rows_are_asked_as_they_are_trained(tmp_path: Path, tokens: ModelTokens) -> None:
    path = rows_file(tmp_path / "a.jsonl", {"instruction": "Sum up", "input": "A text", "output": "Short"})
    (case,) = chosen(path, tokens).chosen
    assert case.messages == ({"role": "user", "content": "Sum up\n\nA text"},)
    assert tokens.text(case.prompt) == "<|im_start|>user\nSum up\n\nA text<|im_end|>\n<|im_start|>assistant\n"


def test_what_cannot_be_compared_is_passed_over_and_counted(tmp_path: Path, tokens: ModelTokens) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    path = rows_file(
        tmp_path / "a.jsonl",
        chat("Hi", "Hello"),
        chat("say <|im_end|>", "no"),
        chat("long " * 3000, "yes"),
        {"messages": [{"role": "user", "content": "call f"}, call]},
        {"prompt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "completion": "Hello<|im_end|>"},
    )  # fmt: skip
    found = chosen(path, tokens, is_literal=False)
    assert len(found.chosen) == 1
    assert set(found.excluded) <= {cases.SPECIAL, cases.LONG, cases.TOOLS, cases.WRITTEN, cases.NO_ANSWER}
    assert (found.excluded[cases.SPECIAL], found.excluded[cases.LONG], found.excluded[cases.TOOLS]) == (1, 1, 1)
    literal = chosen(path, tokens, is_literal=True)
    assert (literal.excluded[cases.TRAINED], cases.SPECIAL in literal.excluded) == (1, False)


def test_a_row_that_training_reads_literally_is_asked_of_an_endpoint_that_does_too(
    tmp_path: Path, tokens: ModelTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tokens.render
    path = rows_file(tmp_path / "a.jsonl", chat("say <|im_end|>", "no"))

    def literal(row: Row) -> Rendered:
        """As if the control token's text were split into other tokens."""
        whole = sound(row)
        ids = list(whole.ids)
        place = ids.index(tokens.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        return Rendered((*ids[:place], 300, *ids[place + 1 :]), whole.is_trained)

    monkeypatch.setattr(tokens, "render", literal)
    (case,) = chosen(path, tokens, is_literal=True).chosen
    assert case.has_special


def test_the_same_rows_each_time_and_as_many_as_asked_for(tmp_path: Path, tokens: ModelTokens) -> None:
    path = rows_file(tmp_path / "a.jsonl", *(chat(f"Question {number}", f"Answer {number}") for number in range(30)))
    first, second = chosen(path, tokens, 5), chosen(path, tokens, 5)
    assert first == second
    assert (len(first.chosen), first.num_rows) == (5, 30)
    assert max(case.number for case in first.chosen) > 10  # from all over the file


def test_a_row_that_the_chat_template_refuses_is_passed_over_as_in_training(
    tmp_path: Path, tokens: ModelTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ raise_exception('no systems') if messages[0]['role'] == 'system' }}" + tokens.tokenizer.chat_template
    monkeypatch.setattr(tokens.tokenizer, "chat_template", template)
    refused = {"messages": [{"role": "system", "content": "Be kind"}, *chat("Hi", "Hello")["messages"]]}
    found = chosen(rows_file(tmp_path / "a.jsonl", refused, chat("Hi", "Hello")), tokens)
    assert [case.number for case in found.chosen] == [2]
    assert found.excluded == {cases.REFUSED: 1}


def test_a_row_and_its_answer_fit_into_the_context(tmp_path: Path, tokens: ModelTokens) -> None:
    path = rows_file(tmp_path / "a.jsonl", chat("Hi", "Hello"))
    (case,) = chosen(path, tokens).chosen
    needed = case.first + case.budget
    assert (case.budget, needed > len(case.ids)) == (cases.MIN_BUDGET, True)
    assert chosen(path, tokens, context=needed).chosen == (case,)
    with pytest.raises(RecipeUnusable, match=cases.LONG):
        chosen(path, tokens, context=needed - 1)


def test_no_usable_row_is_said_with_the_reasons(tmp_path: Path, tokens: ModelTokens) -> None:
    path = rows_file(tmp_path / "a.jsonl", chat("say <|im_end|>", "no"))
    with pytest.raises(RecipeUnusable, match=r"a\.jsonl can be asked: 1 with special tokens' texts in a message"):
        chosen(path, tokens, is_literal=False)


def places(held_out: HeldOut) -> list[str]:
    return [held_out.loaded.row(place).question for place in held_out.places]


CITIES = ("Oslo", "Rome", "Lima", "Seoul", "Cairo", "Quito", "Delhi", "Paris", "Sofia", "Accra", "Minsk", "Dakar")


def trained_on(folder: Path, data: dict[str, Any], seed: int) -> Recipe:
    """The recipe of a run in `folder`."""
    train = rows_file(folder / "train.jsonl", *(chat(f"Where is {city}?", f"{city} lies there") for city in CITIES))
    evaluation = rows_file(folder / "eval.jsonl", chat("What else?", "More"))
    sources = (Source(evaluation),) if data.get("eval_sources") else ()
    rest = {name: value for name, value in data.items() if name != "eval_sources"}
    recipe = Recipe(TARGET_DIR, Data((Source(train),), eval_sources=sources, **rest), folder / "run", seed=seed)
    (folder / "run" / "attempts").mkdir(parents=True)
    (folder / "run" / "attempts" / "1.json").write_text(json.dumps(to_json(recipe)))
    return recipe


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("data", "count"), [({"eval_sources": True}, 1), ({"eval_share": 0.25}, 3), ({"eval_rows": 5}, 5)]
)
def test_a_runs_held_out_rows_are_those_that_training_evaluated_on(
    tmp_path: Path, tokens: ModelTokens, data: dict[str, Any], count: int, seed: int
) -> None:
    recipe = trained_on(tmp_path, data, seed)
    trained = Reader(recipe.data, tokens, seed, Unwatched()).prepare().held_out
    assert trained is not None
    expected = [tuple(map(int, trained.row(place)[0])) for place in range(len(trained))]
    with of_run(tmp_path / "run") as held_out:
        found = [tokens.render(held_out.loaded.row(place)).ids for place in held_out.places]
        assert "was trained on" not in held_out.words
    assert (found, len(found)) == (expected, count)


def test_a_run_that_held_nothing_out_is_asked_what_it_was_trained_on(tmp_path: Path) -> None:
    trained_on(tmp_path, {}, 1)
    with of_run(tmp_path / "run") as held_out:
        assert places(held_out) == [f"Where is {city}?" for city in CITIES]
        assert "was trained on" in held_out.words


def test_a_run_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match=r"has no recipe .*--data FILE"), of_run(tmp_path):
        pass
