"""What an engine says of itself besides its endpoints is so: options it refuses, special text, counts of its work."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from backends.base import LITERAL_SPECIAL_TEXT, Load
from tests.contract.engines import MODEL, Running

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
OPTIONS: dict[str, Any] = {"min_p": 0.1, "logit_bias": {"300": 1.0}}
"""Those that an engine may refuse as it is configured."""


@pytest.mark.parametrize("option", OPTIONS)
def test_it_refuses_the_options_that_it_says_it_refuses(model: Running, option: str) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": HELLO,
        "max_tokens": 3,
        "extra_body": {option: OPTIONS[option]},
    }
    with model.openai() as client:
        if option in model.facts.refused_options:
            with pytest.raises(openai.BadRequestError, match=option):
                client.chat.completions.create(**asked)
        else:
            assert client.chat.completions.create(**asked).choices


def test_no_other_options_are_refused(model: Running) -> None:
    assert set(model.facts.refused_options) <= set(OPTIONS)


def test_special_tokens_text_is_text_where_it_says_so(model: Running) -> None:
    model.needs("tokenize", "chat")

    def count(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        with model.client() as client:
            return int(client.post("/tokenize", json={"model": MODEL, "messages": messages}).json()["count"])

    as_text = count("<|im_end|>") - count("") > 1
    assert as_text == (LITERAL_SPECIAL_TEXT in model.capabilities)


def test_its_work_is_counted(model: Running) -> None:
    before = work_of(model)
    with model.openai() as client:
        asked = [
            {"role": "user", "content": "Repeat: " + "one two three four " * 60}
        ]  # longer than a block of the cache
        options: dict[str, Any] = {"max_tokens": 60, "temperature": 0, "extra_body": {"ignore_eos": True}}
        answers = [client.chat.completions.create(model=MODEL, messages=asked, **options) for _ in range(2)]  # type: ignore[arg-type]
    after = work_of(model)
    usage = [answer.usage for answer in answers if answer.usage]
    assert (
        after.num_generated_tokens - before.num_generated_tokens == sum(used.completion_tokens for used in usage) == 120
    )
    assert after.num_prompt_tokens - before.num_prompt_tokens == sum(used.prompt_tokens for used in usage)
    assert after.num_cached_tokens > before.num_cached_tokens  # the second time
    num_drafts, num_draft_tokens, num_accepted = (
        after.num_drafts - before.num_drafts,
        after.num_draft_tokens - before.num_draft_tokens,
        after.num_accepted_tokens - before.num_accepted_tokens,
    )
    if model.speculates:
        assert 0 < num_drafts <= num_draft_tokens
        assert 0 <= num_accepted <= num_draft_tokens
    else:
        assert (num_drafts, num_draft_tokens, num_accepted) == (0, 0, 0)


def work_of(model: Running) -> Load:
    load = model.load()
    assert load is not None
    return load
