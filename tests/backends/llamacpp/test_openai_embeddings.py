"""Embeddings over HTTP: the OpenAI SDK as client, hostile requests, and what engines refuse that were started for something else."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import openai
import pytest

from tests.backends.llamacpp.test_server import run_server
from tests.backends.llamacpp.tiny_bert import LENGTH, WIDTH, random_weights, write_gguf
from tests.engine_process import SECRET, EngineProcess, engine_process
from tests.processes import eventually

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATH = "/v1/embeddings"
WIDTH_OF_DEMO = 256


@pytest.fixture(scope="module")
def embedder(
    demo_gguf: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    log = tmp_path_factory.mktemp("embedder") / "engine.log"
    flags = ("--pooling", "mean", "--n-ctx-seq", "600", "--n-seq-max", "16", "--max-waiting", "4")
    with engine_process(demo_gguf, free_port(), log, *flags) as process:
        yield process
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def client(embedder: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{embedder.url}/v1", api_key=SECRET, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def bert(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An encoder: nobody says that it is for embeddings. Two texts make a batch, and four requests are the most it takes."""
    folder = tmp_path_factory.mktemp("bert")
    path = write_gguf(folder / "bert.gguf", random_weights(), gguf.PoolingType.CLS)
    flags = ("--n-seq-max", "2", "--max-waiting", "2", "--n-threads", "1")
    with engine_process(path, free_port(), folder / "engine.log", *flags) as process:
        yield process


def vectors_of(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray[Any, Any]:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], np.float32)


def test_the_sdk_reads_both_formats_alike(client: openai.OpenAI) -> None:
    texts = ["What is a KV cache?", "안녕하세요 🙂"]
    by_default = client.embeddings.create(model="demo", input=texts)  # base64 on the wire
    floats = client.embeddings.create(model="demo", input=texts, encoding_format="float")
    assert vectors_of(by_default).shape == (2, WIDTH_OF_DEMO)
    assert np.array_equal(vectors_of(by_default), vectors_of(floats))
    assert np.linalg.norm(vectors_of(floats), axis=1) == pytest.approx([1, 1])
    assert by_default.object == "list"
    assert by_default.model == "demo"
    assert by_default.usage.prompt_tokens == by_default.usage.total_tokens > 5


def test_base64_is_little_endian_float32(embedder: EngineProcess) -> None:
    with embedder.client() as client:
        answer = client.post(PATH, json={"input": "hello", "encoding_format": "base64", "user": "me"})
    assert answer.headers["content-length"] == str(len(answer.content))
    (item,) = answer.json()["data"]
    assert np.frombuffer(base64.b64decode(item["embedding"]), "<f4").shape == (WIDTH_OF_DEMO,)


def test_token_ids_are_the_texts_they_stand_for(client: openai.OpenAI, embedder: EngineProcess) -> None:
    texts = ["hello", "a longer text"]
    with embedder.client() as http:
        ids = [http.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in texts]
    by_text, by_ids = (vectors_of(client.embeddings.create(model="demo", input=given)) for given in (texts, ids))
    assert np.abs(by_text - by_ids).max() < 1e-3
    one = vectors_of(client.embeddings.create(model="demo", input=ids[1]))
    assert np.abs(one[0] - by_ids[1]).max() < 1e-3


def test_fewer_dimensions_are_the_first_ones_scaled_anew(client: openai.OpenAI) -> None:
    full = vectors_of(client.embeddings.create(model="demo", input="hello"))[0]
    short = vectors_of(client.embeddings.create(model="demo", input="hello", dimensions=64))[0]
    assert short == pytest.approx(full[:64] / np.linalg.norm(full[:64]), abs=1e-3)
    with pytest.raises(openai.BadRequestError, match="this model's vectors have 256 values, got 257"):
        client.embeddings.create(model="demo", input="hello", dimensions=257)


def test_a_too_long_text_is_refused_with_both_numbers_or_cut_when_asked_to(client: openai.OpenAI) -> None:
    ids = [300 + n % 1000 for n in range(700)]
    with pytest.raises(openai.BadRequestError, match=r"input\[1\].* up to 600 tokens.* this one has 700") as error:
        client.embeddings.create(model="demo", input=[[300], ids])
    assert error.value.code == "context_length_exceeded"
    assert error.value.param == "input[1]"
    head = vectors_of(client.embeddings.create(model="demo", input=ids[:600]))
    for limit, kept in ((-1, 600), (600, 600), (5, 5)):
        cut = client.embeddings.create(model="demo", input=ids, extra_body={"truncate_prompt_tokens": limit})
        assert cut.usage.prompt_tokens == kept
        assert (vectors_of(cut)[0] @ head[0] > 0.9999) == (kept == 600)
    with pytest.raises(openai.BadRequestError, match="must be -1 or 1 to 600, got 601"):
        client.embeddings.create(model="demo", input=ids, extra_body={"truncate_prompt_tokens": 601})


def test_two_thousand_texts_in_one_request(client: openai.OpenAI) -> None:
    texts = [f"{n}" for n in range(2048)]
    answer = client.embeddings.create(model="demo", input=texts)
    found = vectors_of(answer)
    assert found.shape == (2048, WIDTH_OF_DEMO)
    few = vectors_of(client.embeddings.create(model="demo", input=[texts[7], texts[2000]]))
    assert np.abs(found[[7, 2000]] - few).max() < 1e-3


MEGABYTE = 1_000_000
REFUSED: dict[str, tuple[Any, str]] = {
    "no input": ({}, "missing field: input"),
    "empty text": ({"input": ""}, "input: an empty text"),
    "empty list": ({"input": []}, "input: an empty list"),
    "an empty one among others": ({"input": ["a", ""]}, "input[1]: an empty text"),
    "mixed": ({"input": ["a", [1]]}, "input[1]: texts and token ids"),
    "a number": ({"input": 5}, "input: must be a text"),
    "no such token": ({"input": [[1, 2], [4096]]}, "input[1]: no such token: 4096 (0 to 4095)"),
    "negative token": ({"input": [-1]}, "input: no such token: -1"),
    "huge token": ({"input": [2**63]}, "input: no such token: 9223372036854775808"),
    "half a token": ({"input": [1, 2.5]}, "input: no such token: 2.5"),
    "a list in a list in a list": ({"input": [[[1]]]}, "input[0]: no such token: [1]"),
    "too many": ({"input": ["a"] * 2049}, "input: at most 2048 texts in one request, got 2049"),
    "a megabyte of one character": ({"input": "a" * MEGABYTE}, "up to 600 tokens"),
    "a megabyte of spaces": ({"input": [" " * MEGABYTE]}, "up to 600 tokens"),
    "a megabyte of ids": ({"input": [7] * (MEGABYTE // 2)}, "this one has 500000"),
    "format": ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    "unknown field": ({"input": "a", "truncate": True}, "unsupported field: truncate"),
    "other model": ({"input": "a", "model": "other"}, "unknown model 'other'"),
    "half a surrogate": (b'{"input": "\\ud800"}', "not valid JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_request_is_refused_by_name(embedder: EngineProcess, name: str) -> None:
    given, words = REFUSED[name]
    content = given if isinstance(given, bytes) else json.dumps(given).encode()
    with embedder.client() as client:
        began = time.monotonic()
        answer = client.post(PATH, content=content)
        assert time.monotonic() - began < 5
    assert answer.status_code == (404 if name == "other model" else 400)
    assert words in answer.json()["error"]["message"]


def test_a_client_that_leaves_frees_its_request(embedder: EngineProcess) -> None:
    body = {"input": [[300 + n] * 600 for n in range(400)]}
    before = embedder.metric("requests_cancelled_total")
    with pytest.raises(httpx.ReadTimeout), embedder.client() as client:
        client.post(PATH, json=body, timeout=1)
    eventually(lambda: embedder.metric("requests_cancelled_total") == before + 1, 5)
    embedder.wait_idle()
    with embedder.client() as client:
        assert client.post(PATH, json={"input": "still there"}).status_code == 200


def test_one_text_does_not_wait_for_hundreds_of_another(bert: EngineProcess) -> None:
    stop, statuses = threading.Event(), []

    def flood() -> None:
        with bert.client() as client:
            while not stop.is_set():
                statuses.append(client.post(PATH, json={"input": [[6] * LENGTH] * 800}).status_code)

    crowd = threading.Thread(target=flood)
    crowd.start()
    try:
        eventually(lambda: bert.metric("num_requests_running") > 0, 20)
        with bert.client() as client:
            seen = bert.metric("embedded_texts_total")
            assert client.post(PATH, json={"input": "the cat"}).status_code == 200
            assert bert.metric("embedded_texts_total") - seen < 400
    finally:
        stop.set()
        crowd.join(60)
    assert set(statuses) == {200}


def test_more_requests_than_there_is_room_for_are_429(bert: EngineProcess) -> None:
    statuses: list[int] = []

    def ask() -> None:
        with bert.client() as client:
            reply = client.post(PATH, json={"input": [[6] * LENGTH] * 150})
            statuses.append(reply.status_code)
            if reply.status_code == 429:
                assert reply.headers["retry-after"] == "1"
                assert "the engine is full" in reply.json()["error"]["message"]

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 4
    bert.wait_idle()


def test_each_engine_says_what_it_was_started_for(embedder: EngineProcess, engine: EngineProcess) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    with embedder.client() as client:
        for path in (
            "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
        ):  # fmt: skip
            answer = client.post(path, json=chat)
            assert answer.status_code == 404
            assert "demo was started for embeddings (pooling: mean)" in answer.json()["error"]["message"]
        (listed,) = client.get("/v1/models").json()["data"]
        assert listed["capabilities"] == ["embeddings", "tokenize", "literal_special_text"]
        assert listed["embedding"] == {"dimensions": WIDTH_OF_DEMO, "pooling": "mean"}
        assert listed["max_model_len"] == 600
        assert client.post("/tokenize", json=chat).status_code == 400
        assert client.get("/health").json()["status"] == "ok"
    with engine.client() as client:
        answer = client.post(PATH, json={"input": "hi"})
        assert answer.status_code == 404
        assert "the option pooling (mean, cls or last) starts it for embeddings" in answer.json()["error"]["message"]
        (listed,) = client.get("/v1/models").json()["data"]
        assert "embeddings" not in listed["capabilities"]


def test_an_encoder_is_for_embeddings_without_being_told(bert: EngineProcess) -> None:
    with bert.client() as client:
        (listed,) = client.get("/v1/models").json()["data"]
        assert listed["embedding"] == {"dimensions": WIDTH, "pooling": "cls"}
        assert listed["max_model_len"] == LENGTH
        answer = client.post(PATH, json={"input": ["the cat sat", "kv"]}).json()
        assert [len(item["embedding"]) for item in answer["data"]] == [WIDTH, WIDTH]
        assert answer["usage"]["prompt_tokens"] == 8  # [CLS] and [SEP] are counted
        long = {"input": "cat " * 100}
        assert "up to 64 tokens; this one has 102" in client.post(PATH, json=long).json()["error"]["message"]
        # A word that is no token is one [UNK], however long.
        for text in ("a" * MEGABYTE, "\u00e9" * MEGABYTE):
            assert client.post(PATH, json={"input": text}).json()["usage"]["prompt_tokens"] == 3
        assert client.post(PATH, json={"input": " " * MEGABYTE}).json()["usage"]["prompt_tokens"] == 2


def test_a_cut_text_still_ends_as_the_model_wants_it(bert: EngineProcess) -> None:
    with bert.client() as client:
        ids = client.post("/tokenize", json={"prompt": "the cat sat on a mat"}).json()["tokens"]
        cut = client.post(PATH, json={"input": "the cat sat on a mat", "truncate_prompt_tokens": 5}).json()
        by_hand = client.post(PATH, json={"input": [*ids[:4], ids[-1]]}).json()
    assert cut["usage"]["prompt_tokens"] == 5
    assert cut["data"][0]["embedding"] == pytest.approx(by_hand["data"][0]["embedding"], abs=1e-5)


def test_a_model_whose_head_says_so_closes_every_text(
    demo_gguf: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    path = tmp_path / "closing.gguf"
    path.write_bytes(demo_gguf.read_bytes())
    reader = gguf.GGUFReader(path, "r+")
    field = reader.get_field("tokenizer.ggml.add_eos_token")
    assert field is not None
    field.parts[field.data[0]][0] = True
    del reader, field
    with (
        engine_process(path, free_port(), tmp_path / "log", "--pooling", "last") as closing,
        closing.client() as client,
    ):
        ids = client.post("/tokenize", json={"prompt": "hello"}).json()["tokens"]
        by_text, by_ids = (client.post(PATH, json={"input": given}).json() for given in ("hello", ids))
        cut = client.post(PATH, json={"input": "hello " * 20, "truncate_prompt_tokens": 1})
    eos = ids[-1]
    assert by_text["usage"]["prompt_tokens"] == len(ids)
    assert by_text["data"][0]["embedding"] == pytest.approx(by_ids["data"][0]["embedding"], abs=1e-5)
    assert eos < 300
    assert "must be -1 or 2 to" in cut.json()["error"]["message"]


@pytest.mark.parametrize(
    ("pooling", "flags", "reason"),
    [
        (None, (), "set pooling to mean, cls or last"),
        (gguf.PoolingType.RANK, (), "a reranker"),
        (gguf.PoolingType.CLS, ("--pooling", "none"), "generate no text"),
        (gguf.PoolingType.CLS, ("--pooling", "rank"), "rank scores pairs of texts"),
        (gguf.PoolingType.CLS, ("--chat-template", __file__), "chat_template: of no use for embeddings"),
    ],
)
def test_an_encoder_that_cannot_be_served_is_one_line_and_exit_code_3(
    tmp_path: Path, free_port: Callable[[], int], pooling: gguf.PoolingType | None, flags: tuple[str, ...], reason: str
) -> None:
    path = write_gguf(tmp_path / "bert.gguf", random_weights(), pooling)
    done = run_server("--model", str(path), "--port", str(free_port()), *flags)
    assert done.returncode == 3
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
