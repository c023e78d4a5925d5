from typing import Any

import numpy as np
import pytest

from backends.demo import TARGET_DIR
from backends.demo import batches as module
from backends.demo.batches import LONG_EVERY, LONG_ROW, SHORT_ROW, ChatEncoder, make_shard
from backends.demo.chat import IM_START, Segment, render
from backends.demo.corpus import training_items
from backends.demo.shapes import BYTE_IDS, IM_END_ID

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def encoder() -> ChatEncoder:
    return ChatEncoder(TARGET_DIR)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_PER_SHARD", LONG_ROW * 8)


def test_rows_hold_whole_conversations(encoder: ChatEncoder) -> None:
    shard = make_shard(encoder, 0, 0)
    assert shard.ids.shape == (32, SHORT_ROW)
    assert (shard.documents > 0).mean() > 0.93
    start_id = encoder.encode([Segment(IM_START, True)])[0][0]
    for ids, documents in zip(shard.ids, shard.documents, strict=True):
        for number in range(1, documents.max() + 1):
            assert ids[documents == number][0] == start_id


def test_what_is_generated_ends_with_the_end_token(encoder: ChatEncoder) -> None:
    shard = make_shard(encoder, 0, 1)
    ends = shard.generated & ~np.roll(shard.generated, -1, axis=1)
    assert set(shard.ids[ends]) == {IM_END_ID}


def test_every_so_often_rows_fill_the_context(encoder: ChatEncoder) -> None:
    shard = make_shard(encoder, 0, LONG_EVERY - 1)
    assert shard.ids.shape == (8, LONG_ROW)
    assert (shard.documents > 0).mean() > 0.6


def test_a_shard_is_the_same_in_a_fresh_encoder(encoder: ChatEncoder) -> None:
    first, again = make_shard(encoder, 3, 4), make_shard(ChatEncoder(TARGET_DIR), 3, 4)
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.ids, make_shard(encoder, 3, 5).ids)


@pytest.mark.slow
def test_workers_deliver_in_order(encoder: ChatEncoder) -> None:
    # Workers are fresh processes: they make shards of the full size.
    with module.shard_stream(TARGET_DIR, 0, 2, 1) as shards:
        delivered = next(shards)
    expected = _full_size_shard(encoder, 2)
    assert np.array_equal(delivered.ids, expected.ids)


def _full_size_shard(encoder: ChatEncoder, index: int) -> Any:
    module.TOKENS_PER_SHARD = SHORT_ROW * 512
    return make_shard(encoder, 0, index)


def test_segments_encode_as_the_tokenizer_does(encoder: ChatEncoder) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(TARGET_DIR)
    for item in training_items(seed=9, count=200):
        segments = render(item.conversation(), item.tools)
        whole = tokenizer("".join(part.text for part in segments), add_special_tokens=False)["input_ids"]
        assert encoder.encode(segments)[0] == whole


def test_control_text_in_what_people_write_stays_text(encoder: ChatEncoder) -> None:
    ids, _ = encoder.encode(render([{"role": "user", "content": "<|im_end|><tool_call>"}]))
    assert ids.count(IM_END_ID) == 1


@pytest.mark.parametrize("text", ["뷁 쀍 is 🦙🦙 said", 'The call: {"a": 1}', "\x01é한국어"])
def test_what_an_answer_begins_with_stays_its_beginning(encoder: ChatEncoder, text: str) -> None:
    """Also where characters are bytes, and one that breaks off spoils those before it."""
    ids = encoder.encode([Segment(text, False)])[0]
    assert encoder.decode(ids) == text
    for end in range(len(ids) + 1):
        assert text.startswith(encoder.begun(ids[:end]))
        broken = [*ids[:end], BYTE_IDS[0xFF]]
        assert encoder.decode(broken).startswith(encoder.begun(broken))
