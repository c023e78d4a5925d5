"""The engine process: what it refuses, what it frees, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from backends.protocol import parse_sse
from tests.engine_process import EngineProcess, engine_process
from tests.processes import eventually

pytestmark = [pytest.mark.engine, pytest.mark.slow]

COMPLETE = "/v1/completions"


def run_server(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backends.llamacpp.server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such model file"),
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 a zip", "not a GGUF file"),
        (b"GGUF" + b"\xff" * 64, "cannot load"),
    ],
)
def test_an_unusable_model_is_one_line_and_exit_code_3(
    tmp_path: Path, free_port: Callable[[], int], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    done = run_server("--model", str(path), "--port", str(free_port()))
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert reason in line
    assert str(path) in line
    assert "Traceback" not in done.stderr


def test_a_cut_off_model_is_refused(demo_gguf: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(demo_gguf.read_bytes()[: demo_gguf.stat().st_size // 2])
    done = run_server("--model", str(path), "--port", str(free_port()))
    assert done.returncode == 3
    assert "corrupted or incomplete" in done.stderr


def test_bad_options_are_all_named(demo_gguf: Path, free_port: Callable[[], int]) -> None:
    done = run_server("--model", str(demo_gguf), "--port", str(free_port()), "--n-ctx", "1", "--split-mode", "x")
    assert done.returncode == 3
    assert "n_ctx: must be at least 256" in done.stderr
    assert "split_mode: must be one of" in done.stderr


def test_a_taken_port_is_refused(engine: EngineProcess, demo_gguf: Path) -> None:
    done = run_server("--model", str(demo_gguf), "--port", engine.url.rsplit(":", 1)[1])
    assert done.returncode == 3
    assert "cannot listen" in done.stderr


def test_a_client_that_leaves_frees_its_request(engine: EngineProcess) -> None:
    body = {"prompt": "hello", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    before = engine.metric("requests_cancelled_total")
    with engine.client() as client, client.stream("POST", COMPLETE, json=body) as reply:
        lines = reply.iter_lines()  # kept: an iterator that is dropped closes its connection
        next(lines)
        assert engine.metric("num_requests_running") == 1
    eventually(lambda: engine.metric("num_requests_running") == 0, 5)
    assert engine.metric("requests_cancelled_total") == before + 1
    assert engine.metric("kv_cells_used") == 0


def test_a_client_that_leaves_before_the_first_byte_frees_its_request(engine: EngineProcess) -> None:
    body = {"prompt": "hello", "max_tokens": 1900, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout), engine.client() as client:
        client.post(COMPLETE, json=body, timeout=0.3)
    eventually(lambda: engine.metric("num_requests_running") == 0, 5)


def hard_schema(tag: str, num_keys: int = 1500) -> dict[str, object]:
    """Seconds of work to compile."""
    keys = {
        f"key {n}": {"type": "string", "pattern": f"^[a-z]{{1,{n % 50 + 5}}}[0-9]+x{n}{tag}$"} for n in range(num_keys)
    }
    return asking_for({"type": "object", "properties": keys})


def asking_for(schema: dict[str, object]) -> dict[str, object]:
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    return {"messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "response_format": wanted}


def ask_and_hang_up(engine: EngineProcess, body: dict[str, object]) -> None:
    """A machine that is quicker than the client's patience refuses it: too many keys to be followed."""
    with engine.client() as client, suppress(httpx.TimeoutException):
        reply = client.post("/v1/chat/completions", json=body, timeout=0.1)
        assert reply.status_code == 400, reply.text


def test_schemas_whose_clients_left_keep_nobody_waiting(engine: EngineProcess) -> None:
    leaving = [threading.Thread(target=ask_and_hang_up, args=(engine, hard_schema(f"q{n}"))) for n in range(8)]
    for thread in leaving:
        thread.start()
    for thread in leaving:
        thread.join()
    began_s = time.monotonic()
    with engine.client() as client:
        reply = client.post("/v1/chat/completions", json=asking_for({"type": "boolean"}))
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] in ("true", "false")
    assert time.monotonic() - began_s < 6


def test_sigterm_does_not_wait_for_a_schema(demo_gguf: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    with engine_process(demo_gguf, free_port(), tmp_path / "log") as engine:
        ask_and_hang_up(engine, hard_schema("q", 3000))
        began_s = time.monotonic()
        os.kill(engine.process.pid, signal.SIGTERM)
        assert engine.process.wait(10) == 0
        assert time.monotonic() - began_s < 3


def test_a_stop_string_frees_the_request(engine: EngineProcess) -> None:
    with engine.client() as client:
        body = {"prompt": "hello", "max_tokens": 1900, "ignore_eos": True, "temperature": 0}
        first = client.post(COMPLETE, json=body | {"max_tokens": 8}).json()["choices"][0]["text"]
        answer = client.post(COMPLETE, json=body | {"stop": first[-2:]}).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] <= 8
    engine.wait_idle()
    assert engine.metric("kv_cells_used") == 0


@pytest.mark.parametrize("is_streamed", [False, True])
def test_logprobs_end_where_a_stop_string_cut_the_text(engine: EngineProcess, is_streamed: bool) -> None:
    no_control = {
        str(token): -100 for token in range(259, 267)
    }  # they have no text, but a name among the log-probabilities
    body = {"prompt": "A list of words:", "max_tokens": 24, "ignore_eos": True, "temperature": 0, "logprobs": 0}
    body["logit_bias"] = no_control
    with engine.client() as client:
        full = client.post(COMPLETE, json=body).json()["choices"][0]
        tokens = full["logprobs"]["tokens"]
        assert "".join(tokens) == full["text"]
        starts = [(at, "".join(tokens[at : at + 3])) for at in range(2, len(tokens) - 3)]
        stop = next(stop for at, stop in starts if full["text"].index(stop) == len("".join(tokens[:at])))
        reply = client.post(COMPLETE, json=body | {"stop": stop, "stream": is_streamed})
    choices = [c for e in parse_sse(reply.content) for c in e["choices"]] if is_streamed else reply.json()["choices"]
    text = "".join(choice["text"] for choice in choices)
    cut = [token for choice in choices if choice.get("logprobs") for token in choice["logprobs"]["tokens"]]
    assert text == full["text"][: full["text"].index(stop)]
    assert text
    assert "".join(cut)[: len(text)] == text
    assert len("".join(cut[:-1])) < len(text), "the last token begins inside the text"


def test_prefixes_are_reused(engine: EngineProcess) -> None:
    system = "You are a helpful assistant. " * 8
    with engine.client() as client:
        for number in range(3):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Question {number}?"}]
            usage = client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 4}).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] // 2


def test_prompt_scores_do_not_depend_on_the_cache(engine: EngineProcess) -> None:
    body = {"prompt": "The capital of France is Paris. " * 20, "max_tokens": 0, "echo": True, "logprobs": 1}
    with engine.client() as client:
        first, second = (client.post(COMPLETE, json=body).json()["choices"][0]["logprobs"] for _ in range(2))
    assert len(first["tokens"]) == len(first["token_logprobs"]) > 128, "more tokens than rows of logits in one step"
    assert first["token_logprobs"][1:] == pytest.approx(second["token_logprobs"][1:], abs=0.02)


def test_many_prompts_and_odd_parameters_in_one_go(engine: EngineProcess) -> None:
    odd = [
        {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 1, "presence_penalty": -1},
        {"temperature": 100, "top_k": 1},
        {"temperature": 1e-6},
        {"top_p": 1e-9, "min_p": 1, "typical_p": 1e-9},
        {"logit_bias": {str(token): -100 for token in range(4096)}},
        {"logit_bias": {"300": 100}, "min_tokens": 5},
        {"stop": [f"stop {number}" for number in range(500)]},
        {"seed": -1},
        {"stop_token_ids": list(range(200)), "min_tokens": 3},
    ]
    answers: list[httpx.Response] = []

    def ask(fields: dict[str, object]) -> None:
        with engine.client() as client:
            answers.append(client.post(COMPLETE, json={"prompt": ["a", "b c"], "max_tokens": 6, **fields}))

    threads = [threading.Thread(target=ask, args=(fields,)) for fields in odd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == len(odd)
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert [choice["finish_reason"] in ("stop", "length") for choice in answer.json()["choices"]] == [True, True]
    engine.wait_idle()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"prompt": "\xff"}', 400, "not valid JSON"),
        (b'{"prompt": "a", "temperature": NaN}', 400, "not valid JSON"),
        (b"{}", 400, "missing field: prompt"),
        (b'{"prompt": ""}', 400, "empty prompt"),
        (b'{"prompt": []}', 400, "prompt: must be"),
        (b'{"prompt": [[]]}', 400, "prompt: must be"),
        (b'{"prompt": [1, -1]}', 400, "prompt: must be"),
        (b'{"prompt": [4096]}', 400, "no such token: 4096"),
        (b'{"prompt": "a", "max_tokens": 2.5}', 400, "max_tokens"),
        (b'{"prompt": "a", "logprobs": 99}', 400, "logprobs"),
        (b'{"prompt": "a", "suffix": "b"}', 400, "unsupported field: suffix"),
        (b'{"prompt": "a", "min_tokens": 9, "max_tokens": 3}', 400, "min_tokens"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (json.dumps({"prompt": "a" * 1_000_000}).encode(), 400, "context is 2048 tokens"),
        (json.dumps({"prompt": ["a"] * 200}).encode(), 400, "at most 128"),
    ],
)
def test_hostile_bodies_get_one_clear_error(engine: EngineProcess, body: bytes, status: int, words: str) -> None:
    with engine.client() as client:
        reply = client.post(COMPLETE, content=body)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_a_stop_id_ends_an_answer_that_ignores_the_end(engine: EngineProcess) -> None:
    with engine.client() as client:
        body = {"prompt": "hello", "max_tokens": 40, "ignore_eos": True, "logit_bias": {"300": 100}}
        choice = client.post(COMPLETE, json=body | {"stop_token_ids": [300]}).json()["choices"][0]
    assert choice["finish_reason"] == "stop"


def test_the_text_of_every_special_token_stays_text(engine: EngineProcess) -> None:
    with engine.client() as client:
        assert "literal_special_text" in client.get("/v1/models").json()["data"][0]["capabilities"]
        for text in ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<tool_call>"):
            messages = [{"role": "user", "content": text}]
            chat = client.post("/tokenize", json={"messages": messages, "return_token_strs": True}).json()
            plain = client.post("/tokenize", json={"prompt": text}).json()["tokens"]
            assert len(plain) > 1
            assert any(chat["tokens"][at : at + len(plain)] == plain for at in range(chat["count"])), text


def test_streamed_logprobs_go_on_where_the_last_ones_ended(engine: EngineProcess) -> None:
    body = {
        "prompt": "The capital of France",
        "max_tokens": 6,
        "echo": True,
        "logprobs": 1,
        "temperature": 2.0,
        "seed": 3,
    }
    with engine.client() as client:
        whole = client.post(COMPLETE, json=body).json()["choices"][0]["logprobs"]
        events = parse_sse(client.post(COMPLETE, json=body | {"stream": True}).content)
    parts = [choice["logprobs"] for event in events for choice in event["choices"] if choice.get("logprobs")]
    assert len(parts) > 3
    offsets = [offset for part in parts for offset in part["text_offset"]]
    tokens = [token for part in parts for token in part["tokens"]]
    for logprobs, places in ((whole, whole["text_offset"]), ({"tokens": tokens}, offsets)):
        ends = [sum(map(len, logprobs["tokens"][:count])) for count in range(len(places))]
        assert places == ends
    for part in [whole, *parts]:
        for token, top in zip(part["tokens"], part["top_logprobs"], strict=True):
            assert top is None or token in top, "the drawn token is among its alternatives"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "x", "prefix": True}]}, "prefix"),
        ({"messages": [{"role": "user", "content": "x"}], "stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "1"}]}, "content"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "role"),
    ],
)
def test_fields_are_honoured_or_refused(engine: EngineProcess, fields: dict[str, object], param: str) -> None:
    with engine.client() as client:
        reply = client.post("/v1/chat/completions", json=fields)
    assert reply.status_code == 400
    assert param in reply.json()["error"]["param"]
    assert reply.json()["error"]["code"]


def test_a_port_that_does_not_exist_and_a_template_that_is_no_text(demo_gguf: Path, tmp_path: Path) -> None:
    done = run_server("--model", str(demo_gguf), "--port", "99999")
    assert (done.returncode, "0 to 65535" in done.stderr) == (3, True)
    template = tmp_path / "template.jinja"
    template.write_bytes(b"\xff\xfe")
    done = run_server("--model", str(demo_gguf), "--port", "0", "--chat-template", str(template))
    assert (done.returncode, "cannot read" in done.stderr) == (3, True)
    assert "Traceback" not in done.stderr


def test_wrong_paths_and_methods(engine: EngineProcess) -> None:
    with engine.client() as client:
        assert client.get("/v1/nothing").status_code == 404
        assert client.get(COMPLETE).status_code == 405
        assert client.post("/v1/embeddings", json={}).status_code == 404
    assert httpx.get(f"{engine.url}/v1/models").status_code == 401
    assert httpx.get(f"{engine.url}/health").status_code == 200


def test_a_full_line_answers_429_and_the_rest_is_served(
    demo_gguf: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    flags = ("--n-seq-max", "1", "--max-waiting", "2", "--n-ctx", "1024")
    with engine_process(demo_gguf, free_port(), tmp_path / "log", *flags) as engine:
        replies: list[httpx.Response] = []

        def ask() -> None:
            with engine.client() as client:
                body = {"prompt": "hello", "max_tokens": 150, "ignore_eos": True}
                replies.append(client.post(COMPLETE, json=body))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        refused = [reply for reply in replies if reply.status_code == 429]
        assert len(replies) == 12
        assert refused
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        served = [reply for reply in replies if reply.status_code == 200]
        assert len(served) >= 3
        assert len(served) + len(refused) == 12


def test_sigterm_lets_a_running_answer_finish(demo_gguf: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    with engine_process(demo_gguf, free_port(), tmp_path / "log") as engine:
        body = {"prompt": "hello", "max_tokens": 300, "ignore_eos": True, "stream": True}
        with engine.client() as client, client.stream("POST", COMPLETE, json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            os.kill(engine.process.pid, signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert engine.process.wait(10) == 0


def test_sigterm_is_heard_while_the_model_loads(demo_gguf: Path, free_port: Callable[[], int]) -> None:
    slow = (
        "import sys, time; from backends.llamacpp import server; server.load = lambda *a: time.sleep(60); server.main()"
    )
    port = free_port()
    command = [sys.executable, "-c", slow, "--model", str(demo_gguf), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        eventually(lambda: answers_503(port), 20)
        process.terminate()
        assert process.wait(5) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def answers_503(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 503
    except httpx.TransportError:
        return False


def test_a_second_sigterm_ends_at_once(demo_gguf: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    with engine_process(demo_gguf, free_port(), tmp_path / "log", "--n-threads", "1") as engine:
        body = {"prompt": ["hello"] * 8, "max_tokens": 2000, "ignore_eos": True, "stream": True}
        with engine.client() as client, client.stream("POST", COMPLETE, json=body) as reply:
            lines = reply.iter_lines()  # dropped, it would close the connection
            next(lines)
            began = time.monotonic()
            os.kill(engine.process.pid, signal.SIGTERM)
            time.sleep(0.3)
            os.kill(engine.process.pid, signal.SIGTERM)
            assert engine.process.wait(5) == 0
            assert time.monotonic() - began < 5
