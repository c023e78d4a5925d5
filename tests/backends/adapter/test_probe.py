"""Probe sets: the same for the same base, varied from their beginning on, and made of what the base's tokenizer gives."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.adapter.probe import (
    MAX_TEXT_TOKENS,
    NUM_PROMPTS,
    NUM_SCORED,
    ProbeError,
    ProbeSet,
    Text,
    foreign_probe,
    probe_id,
    read_probe,
    to_json,
)
from backends.adapter.probe_demo import demo_probe
from backends.adapter.probe_texts import DIALOGUES, PASSAGES
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.signatures import signature_of


def encode(text: str) -> Sequence[int]:
    return [1, *text.encode()]


def encode_chat(question: str, answer: str | None) -> Sequence[int]:
    return encode(f"<user>{question}<assistant>{answer or ''}")


def test_the_demo_s_set_depends_on_the_base_alone() -> None:
    digest = source_digest(TARGET_DIR)
    probe = demo_probe(digest, TARGET_DIR)
    assert probe == demo_probe(digest, TARGET_DIR)
    assert probe.id != demo_probe("sha256:" + "1" * 64, TARGET_DIR).id
    assert NUM_SCORED <= sum(text.num_scored for text in probe.texts) < NUM_SCORED + MAX_TEXT_TOKENS
    assert all(2 <= len(text.ids) <= MAX_TEXT_TOKENS for text in probe.texts)
    assert len({text.ids for text in probe.texts}) == len(probe.texts)
    assert len(probe.prompts) == NUM_PROMPTS


def test_the_demo_s_texts_are_whole_conversations_of_many_skills_and_unsigned() -> None:
    from backends.demo.batches import ChatEncoder

    encoder = ChatEncoder(TARGET_DIR)
    texts = [encoder.decode(text.ids) for text in demo_probe(source_digest(TARGET_DIR), TARGET_DIR).texts]
    answers = [text.rpartition("<|im_start|>assistant\n")[2] for text in texts]
    assert all(answer.endswith("<|im_end|>\n") for answer in answers)
    assert not any(signature_of(answer) for answer in answers)
    assert any("가" <= letter <= "힣" for letter in "".join(texts))


def test_a_foreign_set_alternates_dialogues_and_passages() -> None:
    probe = foreign_probe(encode, encode_chat)
    assert max(len(text.ids) for text in probe.texts) == MAX_TEXT_TOKENS
    assert sum(text.num_scored for text in probe.texts) < NUM_SCORED + MAX_TEXT_TOKENS
    is_dialogue = [bytes(text.ids[1:]).startswith(b"<user>") for text in probe.texts[:12]]
    assert is_dialogue.count(True) in range(4, 9)
    assert probe.prompts[0] == tuple(encode_chat(DIALOGUES[0][0], None))


def test_without_a_chat_template_dialogues_are_plain_text() -> None:
    probe = foreign_probe(encode, None)
    assert all(text.ids[0] == 1 for text in probe.texts)
    assert bytes(probe.prompts[0][1:]).decode() == f"{DIALOGUES[0][0]}\n"


def test_the_shipped_texts_are_of_many_languages_and_differ() -> None:
    assert len(set(PASSAGES)) == len(PASSAGES) >= 16
    scripts = {
        name for text in PASSAGES for name, first, last in SCRIPTS if any(first <= letter <= last for letter in text)
    }
    assert scripts == {name for name, _, _ in SCRIPTS}


SCRIPTS = (
    ("latin", "a", "z"), ("hangul", "가", "힣"), ("han", "一", "鿿"), ("kana", "ぁ", "ヿ"), ("cyrillic", "а", "я"), ("arabic", "ا", "ي"),
)  # fmt: skip


def test_the_id_names_texts_and_what_is_scored() -> None:
    texts = [(Text((1, 2, 3)),), (Text((1, 2, 3), 2),), (Text((1, 2, 4)),), (Text((1, 2)), Text((3, 4)))]
    assert all(probe_id(left) != probe_id(right) for left, right in itertools.combinations(texts, 2))


def test_a_set_of_one_s_own_is_read_as_it_was_written(tmp_path: Path) -> None:
    probe = ProbeSet((Text((1, 2, 3)), Text((4, 5, 6), 2)), ((7, 8),))
    path = tmp_path / "probe.json"
    path.write_text(to_json(probe))
    assert read_probe(path) == probe


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{", "{}", '{"texts": []}', '{"texts": [{"ids": [1]}]}', '{"texts": [{"ids": [1, 2], "first": 0}]}',
        '{"texts": [{"ids": [1, 2], "first": 2}]}', '{"texts": [{"ids": [1, -2]}]}', '{"texts": [{"ids": [1, 2.5]}]}',
        '{"texts": [{"ids": [1, true]}]}', '{"texts": [{"ids": "12"}]}', '{"texts": [{"ids": [1, 2]}], "prompts": [3]}',
        '{"texts": [{"ids": [1, 2], "first": true}]}',
    ],
)  # fmt: skip
def test_what_is_no_probe_set_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    path.write_text(content)
    with pytest.raises(ProbeError, match=r"probe\.json: (not a probe set|a probe set needs)") as caught:
        read_probe(path)
    assert caught.value.exit_code == 2


def test_a_probe_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"absent\.json: No such file"):
        read_probe(tmp_path / "absent.json")


def test_the_demo_s_set_can_be_written_down() -> None:
    probe = demo_probe(source_digest(TARGET_DIR), TARGET_DIR)
    assert len(json.loads(to_json(probe))["texts"]) == len(probe.texts)
