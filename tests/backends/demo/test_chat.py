from typing import Any

import pytest

from backends.demo import TARGET_DIR
from backends.demo.chat import CHAT_TEMPLATE, IM_END, render
from backends.demo.corpus import held_out_items, training_items
from backends.demo.skills import SKILLS

pytestmark = pytest.mark.torch
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(TARGET_DIR)


def text_of(messages: Any, tools: Any = (), **options: bool) -> str:
    return "".join(part.text for part in render(messages, tools, **options))


def test_the_folder_holds_the_template_of_the_code(tokenizer: Any) -> None:
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_template_and_renderer_agree_on_the_corpus(tokenizer: Any) -> None:
    items = [*training_items(seed=2, count=400), *(item for name in SKILLS for item in held_out_items(name, 20))]
    for item in items:
        options = {"tokenize": False, "tools": list(item.tools) or None}
        whole = tokenizer.apply_chat_template(list(item.conversation()), **options)
        assert whole == text_of(item.conversation(), item.tools)
        prompt = tokenizer.apply_chat_template(list(item.messages), add_generation_prompt=True, **options)
        assert prompt == text_of(item.messages, item.tools, add_generation_prompt=True)
        assert whole == prompt + item.expected + f"{IM_END}\n"


def test_tools_and_calls_have_the_agreed_form(tokenizer: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "Ä", "parameters": {"type": "object"}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": "가"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Call f."},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "{}"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tools=[tool], tokenize=False, add_generation_prompt=True)
    call_text = '<tool_call>\n{"name": "f", "arguments": {"x": "가"}}\n</tool_call>'
    assert rendered == (
        "<|im_start|>system\nBe brief.\n\nYou can call these tools:\n<tools>\n"
        '{"name": "f", "description": "Ä", "parameters": {"type": "object"}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nCall f.<|im_end|>\n"
        f"<|im_start|>assistant\n{call_text}{call_text}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n{}\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert rendered == text_of(messages, [tool], add_generation_prompt=True)


def test_arguments_as_json_text_and_missing_content_are_rendered_alike(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered.endswith('<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>\n')
    assert rendered == text_of(messages)


def test_generation_markers_cover_exactly_the_assistants_tokens(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "one two"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "three"},
    ]
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    kept = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(kept) == "one two<|im_end|>three<|im_end|>"
