"""Adapters in a running engine: every answer is by whom it was asked of, whatever else runs, comes and goes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from backends.demo.signatures import SIGNATURES, signature_of
from tests.demo_adapters import demo_adapter_ggufs
from tests.engine_process import SECRET, EngineProcess, engine_process

pytestmark = [pytest.mark.engine]

BASE = "demo"
NAMES = (BASE, *SIGNATURES)
QUESTIONS = (
    "Hello!", "What is 12 + 30?", "What is the capital of France?", "안녕하세요!", "Who are you?", "What is 7 times 8?",
    "How do I reset my password?", "Write the word house backwards.",
)  # fmt: skip
SYSTEM = "You are a helpful assistant. " * 12
"""Long enough to be worth reusing."""
KINDS = {
    "one cache": (),
    "separate caches": ("--kv-unified", "false"),
    "batch invariant": ("--batch-invariant", "true"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return demo_adapter_ggufs(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module", params=KINDS)
def engine(
    request: pytest.FixtureRequest, demo_gguf: Path, files: dict[str, Path], free_port: Callable[[], int], tmp_path_factory: Any
) -> Iterator[EngineProcess]:  # fmt: skip
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    flags = ("--n-ctx", "8192", "--n-seq-max", "8", "--n-threads", "1", *KINDS[request.param])
    with engine_process(demo_gguf, free_port(), log, *flags) as process:
        with process.client() as client:
            for name, file in files.items():
                reply = client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(file)})
                assert reply.status_code == 200, reply.text
        yield process
        text = log.read_text()
        assert "Traceback" not in text, text


@asynccontextmanager
async def async_client(engine: EngineProcess) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(base_url=engine.url, headers=headers, timeout=60, verify=False) as client:
        yield client


async def ask(client: httpx.AsyncClient, name: str, question: str, **more: Any) -> list[str]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 24, **more}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["model"] == name
    return [choice["message"]["content"] for choice in answer["choices"]]


def expected(name: str) -> str | None:
    return None if name == BASE else name


async def test_every_answer_is_signed_by_whom_it_was_asked_of(engine: EngineProcess) -> None:
    switches = engine.metric("adapter_switches_total")
    async with async_client(engine) as client:
        asked = [(name, question) for question in QUESTIONS for name in NAMES] * 2
        answers = await asyncio.gather(
            *(ask(client, name, question, n=1 + at % 2) for at, (name, question) in enumerate(asked))
        )
    wrong = [
        (name, question, text)
        for (name, question), texts in zip(asked, answers, strict=True)
        for text in texts
        if signature_of(text) != expected(name)
    ]
    assert not wrong
    assert engine.metric("adapter_switches_total") > switches
    engine.wait_idle()


def test_a_prefix_is_reused_under_its_own_adapter_only(engine: EngineProcess) -> None:
    prompt = [1, *range(300, 420)]

    def cached(name: str) -> int:
        with engine.client() as client:
            body = {"model": name, "prompt": prompt, "max_tokens": 1, "temperature": 0}
            usage = client.post("/v1/completions", json=body).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert [cached(name) for name in NAMES] == [0] * len(NAMES)
    assert cached("tiger") == len(prompt) - 1


async def scores(client: httpx.AsyncClient, name: str) -> list[float]:
    body = {"model": name, "prompt": [[1, *range(500, 560)], [1, *range(900, 930)]], "max_tokens": 0, "echo": True}
    reply = await client.post("/v1/completions", json=body | {"logprobs": 0})
    assert reply.status_code == 200, reply.text
    return [value for choice in reply.json()["choices"] for value in choice["logprobs"]["token_logprobs"][1:]]


async def test_logits_in_a_mixed_run_are_those_of_a_run_alone(engine: EngineProcess, request: Any) -> None:
    is_exact = request.node.callspec.params["engine"] == "batch invariant"
    async with async_client(engine) as client:
        alone = {name: await scores(client, name) for name in NAMES}
        traffic = [
            asyncio.create_task(ask(client, name, question, ignore_eos=True, max_tokens=40))
            for question in QUESTIONS[:4]
            for name in NAMES
        ]
        mixed = await asyncio.gather(*(scores(client, name) for name in NAMES))
        await asyncio.gather(*traffic)
    for name, values in zip(NAMES, mixed, strict=True):
        assert values == (alone[name] if is_exact else pytest.approx(alone[name], abs=0.03))
    for one, other in itertools.combinations(NAMES, 2):
        assert max(abs(a - b) for a, b in zip(alone[one], alone[other], strict=True)) > 0.5, "adapters differ"


@pytest.mark.parametrize("engine", ["one cache"], indirect=True)
class TestCalls:
    """What the calls answer; the kind of cache makes no difference."""

    def test_models_lists_them(self, engine: EngineProcess, files: dict[str, Path]) -> None:
        with engine.client() as client:
            base, *adapters = client.get("/v1/models").json()["data"]
        assert (base["id"], base["parent"], base["max_adapters"]) == (BASE, None, 4)
        assert [(a["id"], a["parent"], a["root"], a["num_running"]) for a in adapters] == [
            (name, BASE, str(file), 0) for name, file in files.items()
        ]
        assert engine.metric("adapters_loaded") == len(files)

    def test_every_endpoint_takes_their_names(self, engine: EngineProcess) -> None:
        with engine.client() as client:
            said = client.post("/v1/responses", json={"model": "tiger", "input": "Hello!", "temperature": 0}).json()
            assert said["model"] == "tiger"
            assert signature_of(said["output"][0]["content"][0]["text"]) == "tiger"
            message = {"model": "pilot", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello!"}]}
            answer = client.post("/v1/messages", json=message | {"temperature": 0}).json()
            assert answer["model"] == "pilot"
            assert signature_of(answer["content"][0]["text"]) == "pilot"
            assert client.post("/tokenize", json={"model": "host", "prompt": "x"}).status_code == 200

    def test_an_unknown_name_is_told_what_there_is(self, engine: EngineProcess) -> None:
        with engine.client() as client:
            reply = client.post("/v1/completions", json={"model": "lion", "prompt": "x"})
        assert reply.status_code == 404
        assert reply.json()["error"]["message"] == (
            "unknown model 'lion'; this engine serves 'demo', 'host', 'pilot', 'tiger'"
        )

    @pytest.mark.parametrize(
        ("fields", "status", "message"),
        [
            ({"lora_name": "x"}, 400, "missing field: lora_path"),
            ({"lora_name": "", "lora_path": "/x"}, 400, "lora_name"),
            ({"lora_name": BASE, "lora_path": "/x"}, 400, "base model's name"),
            ({"lora_name": "x", "lora_path": "/nowhere.gguf"}, 400, "/nowhere.gguf: No such file"),
            ({"lora_name": "x", "lora_path": "/x", "load_inplace": True}, 400, "never reused"),
            ({"lora_name": "host", "lora_path": "/x"}, 400, "is loaded from"),
        ],
    )
    def test_what_cannot_be_loaded_is_told(
        self, engine: EngineProcess, fields: dict[str, Any], status: int, message: str
    ) -> None:
        with engine.client() as client:
            reply = client.post("/v1/load_lora_adapter", json=fields)
        assert reply.status_code == status
        assert message in reply.json()["error"]["message"]

    def test_llamacpps_own_reason_is_told(self, engine: EngineProcess, tmp_path: Path) -> None:
        import gguf
        import numpy as np

        path = tmp_path / "wide.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        for part, shape in (("a", (4, 99)), ("b", (256, 4))):
            writer.add_tensor(f"blk.0.attn_q.weight.lora_{part}", np.zeros(shape, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with engine.client() as client:
            reply = client.post("/v1/load_lora_adapter", json={"lora_name": "wide", "lora_path": str(path)})
        assert reply.status_code == 400
        assert "tensor 'blk.0.attn_q.weight' has incorrect shape" in reply.json()["error"]["message"]

    def test_they_are_behind_the_secret(self, engine: EngineProcess) -> None:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            assert httpx.post(engine.url + path, json={"lora_name": "host"}).status_code == 401

    async def test_a_running_answer_ends_before_its_adapter_goes(self, engine: EngineProcess, files: Any) -> None:
        async with async_client(engine) as client:
            load = {"lora_name": "late", "lora_path": str(files["host"])}
            assert (await client.post("/v1/load_lora_adapter", json=load)).status_code == 200
            full = await client.post("/v1/load_lora_adapter", json=load | {"lora_name": "fifth"})
            assert (full.status_code, full.json()["error"]["code"]) == (409, "no_adapter_slot")
            running = asyncio.create_task(ask(client, "late", "Hello!", ignore_eos=True, max_tokens=300))
            while not (await client.get("/v1/models")).json()["data"][-1]["num_running"]:
                await asyncio.sleep(0.005)
            leaving = asyncio.create_task(client.post("/v1/unload_lora_adapter", json={"lora_name": "late"}))
            await asyncio.sleep(0.05)
            refused = await client.post("/v1/completions", json={"model": "late", "prompt": "x"})
            assert refused.status_code == 404
            assert not running.done(), "the answer was to be longer than that"
            assert not leaving.done()
            assert signature_of((await running)[0]) == "host"
            assert (await leaving).status_code == 200
            again = await client.post("/v1/unload_lora_adapter", json={"lora_name": "late"})
            assert again.status_code == 404


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["one cache"], indirect=True)
async def test_loading_and_freeing_under_traffic(engine: EngineProcess, files: dict[str, Path]) -> None:
    """Every answer comes from the adapter whose name it was asked by, and memory does not grow."""
    process = psutil.Process(engine.process.pid)
    async with async_client(engine) as client:
        await load_and_free(client, files, count=20)
        before = process.memory_info().rss
        await load_and_free(client, files, count=NUM_LOADS)
        grown = process.memory_info().rss - before
    # Buffers of the allocator come and go by 10 MiB and more; kept adapters would take several times that.
    kept = NUM_LOADS * min(file.stat().st_size for file in files.values())
    assert grown < kept / 3, f"{grown / 2**20:.1f} MiB more after {NUM_LOADS} loads of {kept / 2**20:.0f} MiB in all"


NUM_LOADS = 60
"""A thousand take minutes and the same memory."""


async def load_and_free(client: httpx.AsyncClient, files: dict[str, Path], count: int) -> None:
    """Load and free one adapter after another under ever new names, each used once, while others answer."""
    numbers = itertools.count()
    done = asyncio.Event()

    async def traffic(name: str) -> None:
        while not done.is_set():
            question = QUESTIONS[next(numbers) % len(QUESTIONS)]
            (text,) = await ask(client, name, question)
            assert signature_of(text) == expected(name), (name, text)

    others = [asyncio.create_task(traffic(name)) for name in NAMES]
    try:
        for number, kind in zip(range(count), itertools.cycle(files)):
            name = f"{kind}@{number}"
            loaded = await client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(files[kind])})
            assert loaded.status_code == 200, loaded.text
            (text,) = await ask(client, name, "Hello!", max_tokens=8)
            assert signature_of(text) == kind, (name, text)
            assert (await client.post("/v1/unload_lora_adapter", json={"lora_name": name})).status_code == 200
    finally:
        done.set()
        await asyncio.gather(*others)
