"""Rows as the demo model's own tokenizer and chat template make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.demo import TARGET_DIR
from finetune.dataset.errors import DataUnusable
from finetune.dataset.formats import to_row
from finetune.dataset.show import marked, summary, view_of
from finetune.dataset.tokens import Estimate, ModelTokens, Rendered

CHAT = {
    "messages": [
        {"role": "system", "content": "You are Forge."},
        {"role": "user", "content": "배송은 언제 되나요?"},
        {"role": "assistant", "content": "내일 도착합니다."},
        {"role": "user", "content": "Thanks!"},
        {"role": "assistant", "content": "You are welcome."},
    ]
}


def test_the_estimate_is_near_the_size_of_current_vocabularies() -> None:
    assert Estimate().count("The quick brown fox jumps over the lazy dog.") == 11
    assert 6 <= Estimate().count("배송은 언제 되나요?") <= 10
    assert Estimate().count("") == 0


@pytest.fixture(scope="module")
def tokens() -> ModelTokens:
    return ModelTokens(TARGET_DIR)


@pytest.mark.torch
class TestDemoModel:
    def test_the_loss_counts_the_assistants_words_and_the_ends_of_its_turns(self, tokens: ModelTokens) -> None:
        rendered = tokens.render(to_row(CHAT, 1))
        trained = tokens.text([number for number, flag in zip(rendered.ids, rendered.is_trained, strict=True) if flag])
        assert trained == "내일 도착합니다.<|im_end|>You are welcome.<|im_end|>"
        assert tokens.text(rendered.ids).startswith(
            "<|im_start|>system\nYou are Forge.<|im_end|>\n<|im_start|>user\n배송은"
        )

    def test_templates_without_generation_marks_give_the_same_mask(self, tokens: ModelTokens) -> None:
        row = to_row(CHAT, 1)
        expected = tokens.render(row)
        template = tokens.tokenizer.chat_template
        plain = ModelTokens(TARGET_DIR)
        plain.tokenizer.chat_template = template.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
        plain._marks_answers = False
        assert plain.render(row) == expected

    def test_turns_that_the_record_takes_out_are_not_trained(self, tokens: ModelTokens) -> None:
        record = {"messages": [*CHAT["messages"][:2], {**CHAT["messages"][2], "weight": 0}, *CHAT["messages"][3:]]}
        rendered = tokens.render(to_row(record, 1))
        trained = tokens.text([number for number, flag in zip(rendered.ids, rendered.is_trained, strict=True) if flag])
        assert trained == "You are welcome.<|im_end|>"

    def test_marks_that_a_completion_has_already_are_not_put_around_it_again(self, tokens: ModelTokens) -> None:
        record = {"prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "completion": "hello<|im_end|>"}
        rendered = tokens.render(to_row(record, 1))
        assert tokens.text(rendered.ids) == record["prompt"] + record["completion"]
        assert (
            tokens.text([number for number, flag in zip(rendered.ids, rendered.is_trained, strict=True) if flag])
            == "hello<|im_end|>"
        )

    def test_alpacas_input_follows_its_instruction_in_one_message(self, tokens: ModelTokens) -> None:
        rendered = tokens.render(to_row({"instruction": "Sum.", "input": "1 2", "output": "3"}, 1))
        assert "<|im_start|>user\nSum.\n\n1 2<|im_end|>" in tokens.text(rendered.ids)

    def test_what_the_view_shows(self, tokens: ModelTokens) -> None:
        row = to_row(CHAT, 7)
        view = view_of(row, tokens, 10_000)
        assert "⟦내일 도착합니다.<|im_end|>⟧\n" in marked(view)
        assert summary(view) == f"row 7 (ChatML): {len(view.rendered)} tokens, {view.num_trained} trained"
        cut = view_of(row, tokens, 24)
        assert "cut off by max_length" in summary(cut)
        assert "NOT trained" in summary(cut)
        assert marked(cut).count("✂") >= 2

    def test_a_row_that_the_template_refuses(self, tokens: ModelTokens) -> None:
        strict = ModelTokens(TARGET_DIR)
        strict.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(DataUnusable, match="roles must alternate"):
            strict.render(to_row(CHAT, 1))

    def test_a_template_that_does_not_train_the_end(self, tokens: ModelTokens, tmp_path: Path) -> None:
        from finetune.dataset.row_checks import _ends_trained

        rendered = tokens.render(to_row(CHAT, 1))
        assert _ends_trained(rendered, frozenset(tokens.ends))
        last = max(place for place, flag in enumerate(rendered.is_trained) if flag)
        without = Rendered(
            rendered.ids, tuple(flag and place != last for place, flag in enumerate(rendered.is_trained))
        )
        assert not _ends_trained(without, frozenset(tokens.ends))

    def test_a_folder_that_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(DataUnusable, match="forgegate models pull"):
            ModelTokens(tmp_path / "none")
        with pytest.raises(DataUnusable, match="cannot load its tokenizer"):
            ModelTokens(tmp_path)
