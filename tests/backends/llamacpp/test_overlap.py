"""Text, stop strings and events of one step are made while the engine's thread computes the next one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from backends.llamacpp.mailbox import Mailbox
from backends.llamacpp.options import Options

pytestmark = [pytest.mark.engine]

NUM_STREAMS = 8
Interval = tuple[float, float]


async def read(answer: object) -> int:
    return sum([len(chunk) async for chunk in answer.read()])  # type: ignore[attr-defined]


def test_a_step_is_written_while_the_next_one_computes(demo_gguf: Path) -> None:
    loading = pytest.importorskip("backends.llamacpp.loading")
    from backends.llamacpp.api.completions import CompletionRequest, CompletionWire

    decoding: list[Interval] = []
    writing: list[Interval] = []

    async def main() -> None:
        def timed_hand_out(outputs: list[object]) -> None:
            began_s = time.perf_counter()
            serving.hand_out(outputs)
            writing.append((began_s, time.perf_counter()))

        mailbox = Mailbox(asyncio.get_running_loop(), timed_hand_out)
        options = Options(n_ctx=2048, n_seq_max=NUM_STREAMS, n_batch=512, n_ubatch=512)
        serving = await asyncio.to_thread(loading.load, demo_gguf, "demo", options, 1, mailbox.put)
        decode = serving.engine.context.decode

        def timed_decode(*arrays: np.ndarray) -> None:
            began_s = time.perf_counter()
            decode(*arrays)
            decoding.append((began_s, time.perf_counter()))

        serving.engine.context.decode = timed_decode
        request = CompletionRequest(
            prompt="Tell me", max_tokens=100, ignore_eos=True, temperature=0.0, stop=["no such text"], stream=True
        )
        wires = [CompletionWire("demo", serving.token_text) for _ in range(NUM_STREAMS)]
        answers = [await serving.complete(request, wire, is_long=False) for wire in wires]
        sizes = await asyncio.gather(*(read(answer) for answer in answers))
        assert min(sizes) > 1000
        await asyncio.to_thread(serving.close)
        mailbox.close()

    asyncio.run(main())
    assert len(writing) >= 100
    total_s = sum(end - start for start, end in writing)
    hidden_s = sum(
        max(0.0, min(end, other_end) - max(start, other_start))
        for start, end in writing
        for other_start, other_end in decoding
    )
    # Without the GIL being released by llama_decode it would be nothing at all.
    assert hidden_s > 0.7 * total_s, f"only {hidden_s / total_s:.0%} of writing happens during computing"
