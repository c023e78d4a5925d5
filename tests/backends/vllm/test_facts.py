from __future__ import annotations

import msgspec
import pytest

from backends.base import LITERAL_SPECIAL_TEXT, Reply
from backends.vllm.facts import describe, inspect
from backends.vllm.options import Options

GENERATING = {"/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/responses", "/v1/messages"}


class Server:
    def __init__(self, routes: set[str], version: bytes = b'{"version": "0.32.0+cpu"}') -> None:
        self.routes = routes
        self.version = version

    async def __call__(self, path: str) -> Reply:
        models = [{"id": "a@1", "parent": "demo"}, {"id": "demo", "max_model_len": 2048}]
        answers = {
            "/version": Reply(200, self.version), "/v1/models": Reply(200, msgspec.json.encode({"data": models}))
        }  # fmt: skip
        return answers.get(path) or Reply(405 if path in self.routes else 404, b"")


async def test_a_generating_model_answers_what_its_server_has_routes_for() -> None:
    facts = await inspect(Server(GENERATING), "demo", "cpu", Options.from_mapping({}), has_chat_template=True)
    assert facts.capabilities == ("chat", "completions", "tokenize", "responses", "messages", "json_schema")
    assert LITERAL_SPECIAL_TEXT not in facts.capabilities
    assert (facts.context_length, facts.model, facts.description) == (2048, "demo", "vLLM 0.32 on CPU")
    assert facts.refused_options == ()


async def test_a_pooling_model_embeds() -> None:
    facts = await inspect(Server({"/v1/embeddings", "/tokenize"}), "demo", "cuda", Options(), has_chat_template=True)
    assert facts.capabilities == ("tokenize", "embeddings")


async def test_without_a_chat_template_there_is_no_chat() -> None:
    facts = await inspect(Server(GENERATING), "demo", "cpu", Options(), has_chat_template=False)
    assert facts.capabilities == ("completions", "tokenize")


async def test_tools_need_their_parser_and_speculation_refuses_options() -> None:
    speculative = {"method": "ngram", "num_speculative_tokens": 3}
    options = Options.from_mapping({"tool_call_parser": "hermes", "speculative": speculative})
    facts = await inspect(Server(GENERATING), "demo", "cpu", options, has_chat_template=True)
    assert "tools" in facts.capabilities
    assert facts.refused_options == ("min_p", "logit_bias")
    assert facts.description == "vLLM 0.32 on CPU, speculating with ngram"


@pytest.mark.parametrize("version", [b"", b"[]", b'{"x": 1}'])
async def test_a_server_that_does_not_tell_its_version_is_vllm_all_the_same(version: bytes) -> None:
    facts = await inspect(Server(GENERATING, version), "demo", "cuda", Options(), has_chat_template=True)
    assert facts.description == "vLLM on CUDA"


def test_several_gpus_are_counted() -> None:
    assert describe("0.26.0", "cuda", Options(tensor_parallel_size=2)) == "vLLM 0.26 on 2 CUDA GPUs"
