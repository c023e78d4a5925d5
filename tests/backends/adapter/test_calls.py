"""The adapter calls' reading of answers; what engines answer is in tests/contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.adapter.calls import LoraCalls, reason_of
from backends.base import Reply
from backends.errors import AdapterRefused
from tests.fake_adapter_engine import FakeAdapterEngine


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"object": "error", "message": "no"}', "no"),
        (b"<html>", "<html>"),
        (b'{"error": "no"}', '{"error": "no"}'),
        (b"[]", "[]"),
        (b"", "status 500"),
    ],
)
def test_the_reason_is_read_from_either_form(body: bytes, reason: str) -> None:
    assert reason_of(Reply(500, body)) == reason


async def test_vllms_refusal_of_a_loaded_name_is_fine() -> None:
    async def call(path: str, body: bytes, timeout_s: float) -> Reply:
        return Reply(400, b'{"error": {"message": "The lora adapter \'a\' has already been loaded. ..."}}')

    await LoraCalls("").load(call, "a", Path("/x"))


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"choices": []}', b'{"choices": [{"index": 0, "logprobs": {"token_logprobs": [null, null]}}]}'],
)
async def test_scores_that_cannot_be_read_are_refused(body: bytes) -> None:
    async def call(path: str, content: bytes, timeout_s: float) -> Reply:
        return Reply(200, body)

    with pytest.raises(AdapterRefused):
        await LoraCalls("").score(call, "a", [[1, 2]])


async def test_texts_are_scored_some_at_a_time() -> None:
    engine = FakeAdapterEngine()
    texts = [[1, number] for number in range(100)] + [[7] * 3000, [8] * 3000]
    scores = await LoraCalls("").score(engine.call, "demo", texts)
    assert [len(values) for values in scores] == [len(text) - 1 for text in texts]
    sizes = [sum(map(len, fields["prompt"])) for _, fields in engine.calls]
    assert sizes == [128, 3072, 3000]
    assert await LoraCalls("").score(engine.call, "demo", []) == []
