"""General chats of the demo model as rows of training data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from backends.demo import TARGET_DIR
from backends.demo.chat import render
from backends.demo.corpus import Item, training_items
from backends.demo.skills import SKILLS
from finetune.demo_general import chats, items, main, messages_of


def test_the_same_seed_gives_the_same_chats(tmp_path: Path) -> None:
    for name in ("one", "other"):
        assert main(["--out", str(tmp_path / name), "--rows", "50", "--seed", "3"]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one").read_text(encoding="utf-8").splitlines()]
    assert rows == [json.loads(json.dumps(chat)) for chat in chats(50, 3)]
    assert [json.loads(json.dumps(chat)) for chat in chats(50, 4)] != rows
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)
    long = list(chats(50, 3, num_exchanges=3))
    assert len(long) == 50
    assert min(sum(message["role"] == "assistant" for message in chat["messages"]) for chat in long) == 3


def test_evenly_drawn_chats_are_of_every_skill_alike() -> None:
    found = list(islice(items(3, 3, is_even=True), 240))
    assert Counter(item.skill for item in found) == dict.fromkeys(SKILLS, 20)
    short = [item for item in found if sum(message["role"] == "assistant" for message in item.conversation()) < 3]
    assert all(item.messages[0]["role"] == "system" for item in short)
    assert num_json_by_system(found) > 4 > num_json_by_system(islice(items(3, 3, is_even=False), 240))
    assert [{"messages": messages_of(item)} for item in found[:24]] == list(chats(24, 3, 3, is_even=True))


def num_json_by_system(some: Iterable[Item]) -> int:
    """Chats whose system prompt holds a schema."""
    return sum(
        item.skill == "json_answers" and '"type"' in str(item.messages[0])
        for item in some
        if item.messages[0]["role"] == "system"
    )


def test_tools_are_told_in_the_words_of_the_template() -> None:
    items = [item for item in training_items(5, 400) if item.tools]
    assert len(items) > 20
    system = {"role": "system", "content": "Be brief."}
    items += [replace(item, messages=(system, *item.messages)) for item in items]
    for item in items:
        told, meant = (
            "".join(part.text for part in parts)
            for parts in (render(messages_of(item)), render(item.conversation(), item.tools))
        )
        assert told == meant


@pytest.mark.torch
@pytest.mark.slow
def test_rows_are_tokens_of_the_template_itself() -> None:
    from finetune.dataset.formats import to_row
    from finetune.dataset.tokens import ModelTokens

    tokens = ModelTokens(TARGET_DIR)
    for item in [item for item in training_items(5, 200) if item.tools][:20]:
        rendered = tokens.render(to_row({"messages": messages_of(item)}, 1))
        text = "".join(part.text for part in render(item.conversation(), item.tools))
        assert rendered.ids == tuple(tokens.tokenizer.encode(text, add_special_tokens=False))
        assert any(rendered.is_trained)


def test_bad_usage_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "rows"), "--rows", "0"]) == 2
    assert "--rows 0: from 1 to 1,000,000" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "rows")]) == 2
