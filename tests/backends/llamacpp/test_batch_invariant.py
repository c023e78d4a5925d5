"""With batch_invariant an answer has the same bits alone, in any company, after a prefix, and as one of several."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine_process import SECRET, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow]

NUM_PROMPTS = 12
LENGTH = 24
Bits = list[tuple[int | str, float]]


def body(prompt: list[int], **fields: Any) -> dict[str, Any]:
    wanted = {"prompt": prompt, "max_tokens": LENGTH, "temperature": 0, "ignore_eos": True, "logprobs": 2}
    return wanted | fields


def bits(choice: dict[str, Any]) -> Bits:
    logprobs = choice["logprobs"]
    return list(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True))


async def ask(client: httpx.AsyncClient, prompt: list[int], **fields: Any) -> Bits:
    reply = await client.post("/v1/completions", json=body(prompt, **fields))
    assert reply.status_code == 200, reply.text
    return bits(reply.json()["choices"][0])


def prompts() -> list[list[int]]:
    rng = random.Random(3)
    return [
        [rng.randrange(300, 4000) for _ in range(rng.choice([1, 2, 5, 63, 64, 65, 100]))] for _ in range(NUM_PROMPTS)
    ]


async def alone(client: httpx.AsyncClient) -> list[Bits]:
    return [await ask(client, prompt) for prompt in prompts()]


async def crowded(client: httpx.AsyncClient) -> list[Bits]:
    """All at once, at odd times, among neighbours of other lengths that come, go and leave early."""
    rng = random.Random(4)

    async def late(prompt: list[int], **fields: Any) -> Bits:
        await asyncio.sleep(rng.random() * 0.5)
        return await ask(client, prompt, **fields)

    noise = [
        late([rng.randrange(300, 4000)] * rng.randrange(1, 90), max_tokens=rng.randrange(1, 40)) for _ in range(25)
    ]
    found = await asyncio.gather(*(late(prompt) for prompt in prompts()), *noise)
    return list(found[:NUM_PROMPTS])


def test_an_answer_has_the_same_bits_in_any_company(exact_engine: EngineProcess) -> None:
    async def main() -> None:
        headers = {"authorization": f"Bearer {SECRET}"}
        async with httpx.AsyncClient(base_url=exact_engine.url, headers=headers, timeout=100) as client:
            wanted = await alone(client)
            assert await crowded(client) == wanted
            assert await alone(client) == wanted, "after a prefix was found in a cache"
            for prompt, answer in zip(prompts(), wanted, strict=True):
                reply = await client.post("/v1/completions", json=body(prompt, n=5))
                assert [bits(choice) for choice in reply.json()["choices"]] == [answer] * 5
            longer = [*prompts()[3], *([900] * 20)]
            first = await ask(client, longer)
            exact_engine.wait_idle()
            await asyncio.gather(*(ask(client, prompt) for prompt in prompts()))
            assert await ask(client, longer) == first

    asyncio.run(main())


def test_what_cannot_keep_the_promise_is_refused(demo_gguf: Path, tmp_path: Path) -> None:
    loading = pytest.importorskip("backends.llamacpp.loading")
    llama_cpp = pytest.importorskip("llama_cpp.llama_cpp")
    from backends.llamacpp.binding.errors import ModelError
    from backends.llamacpp.binding.library import initialise
    from backends.llamacpp.options import Options, OptionsError

    initialise()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = 15, 2  # Q4_K_M
    quantised = tmp_path / "q4.gguf"
    assert llama_cpp.llama_model_quantize(str(demo_gguf).encode(), str(quantised).encode(), params) == 0
    with pytest.raises(ModelError, match="kernels differ with the batch"):
        loading.load(quantised, "q4", Options(batch_invariant=True), 1, lambda _: None)
    for wrong in ({"n_ubatch": 64}, {"n_seq_max": 64}, {"n_gpu_layers": 3}, {"prefix_cache_cells": 100}):
        with pytest.raises(OptionsError):
            Options(batch_invariant=True, n_ctx=4096, **wrong)  # type: ignore[arg-type]
