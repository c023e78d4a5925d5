"""A draft whose token ids mean something else is refused before the start, by the first token that differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.demo import TARGET_DIR
from backends.errors import ModelUnusable
from backends.vllm.draft import DRAFT_DIR, check_draft, difference, locate_draft, size_difference, tokens_of, vocab_size
from backends.vllm.options import Options

Change = Callable[[dict[str, Any]], None]


def speculating(draft: Path | str, **more: Any) -> Options:
    return Options.from_mapping(
        {"speculative": {"method": "draft_model", "model": str(draft), "num_speculative_tokens": 4, **more}}
    )


def refusal(options: Options, target: Path = TARGET_DIR) -> str:
    with pytest.raises(ModelUnusable) as caught:
        check_draft(options, target)
    return str(caught.value)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, Change], Path]:
    """A copy of the bundled draft, without its weights, with one of its JSON files changed."""

    def change(name: str, how: Change) -> Path:
        folder = tmp_path / "draft"
        shutil.copytree(DRAFT_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        content = json.loads((folder / name).read_text())
        how(content)
        (folder / name).write_text(json.dumps(content))
        return folder

    return change


def test_the_bundled_pair_fits() -> None:
    assert locate_draft("demo") == DRAFT_DIR
    check_draft(speculating("demo"), TARGET_DIR)
    check_draft(speculating(DRAFT_DIR), TARGET_DIR)
    assert len(tokens_of(json.loads((DRAFT_DIR / "tokenizer.json").read_text()))) > 1000


def test_nothing_is_read_where_there_is_no_draft() -> None:
    check_draft(Options(), Path("/nowhere"))
    check_draft(
        Options.from_mapping({"speculative": {"method": "ngram", "num_speculative_tokens": 4}}), Path("/nowhere")
    )


def test_two_tokens_that_changed_places_are_found(changed: Callable[[str, Change], Path]) -> None:
    tokens: list[str] = []

    def swap(content: dict[str, Any]) -> None:
        vocab = content["model"]["vocab"]
        tokens.extend(sorted(vocab, key=vocab.get)[700:702])
        vocab[tokens[0]], vocab[tokens[1]] = vocab[tokens[1]], vocab[tokens[0]]

    draft = changed("tokenizer.json", swap)
    said = refusal(speculating(draft))
    number = json.loads((DRAFT_DIR / "tokenizer.json").read_text())["model"]["vocab"][tokens[0]]
    assert said.startswith(
        f"speculative.model: {draft} is no draft for {TARGET_DIR}: their tokenizers differ from token "
    )
    assert f"token {number} on, which is {tokens[0]!r} to the model and {tokens[1]!r} to the draft" in said
    assert "use_heterogeneous_vocab: true" in said
    check_draft(speculating(draft, use_heterogeneous_vocab=True), TARGET_DIR)


def test_an_added_token_with_another_meaning_is_found(changed: Callable[[str, Change], Path]) -> None:
    draft = changed("tokenizer.json", lambda content: content["added_tokens"][0].update(content="<|other|>"))
    assert "and '<|other|>' to the draft" in refusal(speculating(draft))


def test_a_draft_with_more_scores_is_refused(changed: Callable[[str, Change], Path]) -> None:
    size = json.loads((TARGET_DIR / "config.json").read_text())["vocab_size"]
    draft = changed("config.json", lambda content: content.update(vocab_size=size + 64))
    assert f"the model computes scores of {size:,} tokens and the draft of {size + 64:,}" in refusal(speculating(draft))


def test_a_draft_without_a_tokenizer_is_held_by_its_size(changed: Callable[[str, Change], Path]) -> None:
    draft = changed("config.json", lambda content: None)
    (draft / "tokenizer.json").unlink()
    check_draft(speculating(draft), TARGET_DIR)


def test_the_models_other_tokenizer_is_the_one_that_counts(
    changed: Callable[[str, Change], Path], tmp_path: Path
) -> None:
    draft = changed("tokenizer.json", lambda content: content["added_tokens"][0].update(content="<|other|>"))
    same = speculating(draft)
    other = Options.from_mapping(
        {
            "speculative": {"method": "draft_model", "model": str(draft), "num_speculative_tokens": 4},
            "tokenizer": str(draft),
        }
    )
    assert refusal(same)
    check_draft(other, TARGET_DIR)


def test_heads_need_no_tokenizer(changed: Callable[[str, Change], Path]) -> None:
    draft = changed("config.json", lambda content: content.update(vocab_size=7))
    check_draft(speculating(draft, method="eagle3"), TARGET_DIR)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "/nowhere/draft",
            "/nowhere/draft: no such folder; a hub's model is pulled first: forgegate models pull ORG/NAME",
        ),
        ("demoo", "no such folder (did you mean 'demo'?)"),
        (str(DRAFT_DIR / "model.safetensors"), "vLLM takes a draft's folder"),
        (str(DRAFT_DIR.parent), "config.json: No such file"),
    ],
)
def test_a_draft_that_is_not_there(name: str, said: str) -> None:
    assert said in refusal(speculating(name))


def test_a_tokenizer_that_cannot_be_read(changed: Callable[[str, Change], Path]) -> None:
    draft = changed("config.json", lambda content: None)
    (draft / "tokenizer.json").write_text("{")
    assert "tokenizer.json: not valid JSON" in refusal(speculating(draft))


@pytest.mark.parametrize(
    ("target", "draft", "words"),
    [
        ({0: "a", 1: "b"}, {0: "a", 1: "b"}, ""),
        ({0: "a", 1: "b"}, {}, ""),
        ({0: "a", 1: "b"}, {0: "a"}, "token 1 on, which is 'b' to the model and none to the draft"),
        ({0: "a"}, {0: "a", 1: "b"}, "token 1 on, which is none to the model and 'b' to the draft"),
        ({0: "a", 1: "b", 2: "c"}, {0: "a", 1: "c", 2: "b"}, "token 1 on"),
    ],
)
def test_the_first_difference_is_named(target: dict[int, str], draft: dict[int, str], words: str) -> None:
    found = difference(target, draft)
    assert words in found
    assert bool(words) == bool(found)


def test_vocabularies_are_read_in_all_their_forms() -> None:
    added = [{"id": 2, "content": "<s>"}]
    assert tokens_of({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}) == {0: "a", 1: "b", 2: "<s>"}
    assert tokens_of({"model": {"vocab": [["a", -1.5], ["b", -2]]}, "added_tokens": added}) == {
        0: "a",
        1: "b",
        2: "<s>",
    }
    assert tokens_of({"model": None, "added_tokens": None}) == {}


def test_sizes_of_models_of_several_media_are_inside() -> None:
    assert vocab_size({"text_config": {"vocab_size": 10}, "vocab_size": 20}) == 10
    assert vocab_size({"vocab_size": 20}) == 20
    assert size_difference({"vocab_size": 20}, {}) == ""
