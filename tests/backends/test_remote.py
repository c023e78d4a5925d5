from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from backends.base import Address, Places, PoolSpec, Reply
from backends.errors import BadSpec, ProbeFailed
from backends.probe import Prober
from backends.remote import Remote, parse_base_url

PLACES = Places(Path("models"), Path("envs"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://h:9", Address("h", 9)),
        ("https://h/v1/", Address("h", 443, tls=True)),
        ("https://h:8443/team/v1", Address("h", 8443, tls=True, path_prefix="/team")),
        ("http://[::1]:80/x", Address("::1", 80, path_prefix="/x")),
    ],
)
def test_base_urls(text: str, address: Address) -> None:
    assert parse_base_url(text) == address


@pytest.mark.parametrize("text", ["", "h:80", "ftp://h", "http://", "http://h:99999", "http://u:p@h", "http://h?x=1"])
def test_what_is_no_base_url_is_refused(text: str) -> None:
    with pytest.raises(BadSpec, match="base_url"):
        parse_base_url(text)


def remote(**changes: object) -> Remote:
    return Remote(PoolSpec("remote", "demo", base_url="http://far:9/p", api_key="sk-1", **changes), PLACES)  # type: ignore[arg-type]


async def inspected(backend: Remote, *models: dict[str, object]) -> object:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://far:9/p/v1/models"
        assert request.headers["authorization"] == "Bearer sk-1"
        return httpx.Response(200, json={"data": list(models)})

    prober = Prober(httpx.MockTransport(answer))
    facts = await backend.inspect(prober.fetch(backend.address(0), backend.secret_for("unused"), 1.0))
    await prober.close()
    return facts


async def test_the_only_model_of_the_other_side_is_taken_with_its_length() -> None:
    facts = await inspected(remote(), {"id": "theirs", "max_model_len": 4096})
    assert (facts.model, facts.context_length) == ("theirs", 4096)  # type: ignore[attr-defined]


async def test_its_adapters_are_no_further_models() -> None:
    facts = await inspected(remote(), {"id": "theirs", "parent": None}, {"id": "theirs@1", "parent": "theirs"})
    assert facts.model == "theirs"  # type: ignore[attr-defined]
    assert (remote().adapters, remote().num_adapter_slots) == (None, 0)


async def test_a_configured_name_goes_before() -> None:
    facts = await inspected(remote(model="b"), {"id": "a"}, {"id": "b"})
    assert (facts.model, facts.context_length) == ("b", None)  # type: ignore[attr-defined]


def test_a_refused_key_is_no_reason_to_wait() -> None:
    assert "refuses the api_key (401)" in remote().refusal(Reply(401, b""))
    assert remote().refusal(Reply(503, b"")) == ""


async def test_no_http_answer_is_a_probe_failure() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    prober = Prober(httpx.MockTransport(refuse))
    with pytest.raises(ProbeFailed, match="connection refused"):
        await prober.get(Address("h", 1), "/health", "", 1.0)
    await prober.close()


@pytest.mark.parametrize(
    ("configured", "listed", "expected"),
    [
        ((), None, ()),
        ((), ["embeddings", "tools", 7], ("embeddings", "tools")),  # another forgegate
        ((), ["completion"], ()),  # a list of something else
        ((), {"completion_chat": True}, ()),
        (("chat",), ["embeddings"], ("chat",)),
    ],
)
async def test_what_the_other_side_says_it_answers(
    configured: tuple[str, ...], listed: object, expected: tuple[str, ...]
) -> None:
    facts = await inspected(remote(capabilities=configured), {"id": "theirs", "capabilities": listed})
    assert facts.capabilities == expected  # type: ignore[attr-defined]


def test_a_misspelt_capability_is_refused() -> None:
    with pytest.raises(BadSpec, match="embedings unknown; known: chat, completions"):
        remote(capabilities=("chat", "embedings"))
