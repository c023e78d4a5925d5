from __future__ import annotations

from pathlib import Path

import pytest

from backends.hub.errors import BadName
from backends.hub.names import HubName, looks_like_hub_name, parse_name, public_name, with_revision


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name")),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF:Q5_K_M", HubName("bartowski/Llama-3.2-1B-Instruct-GGUF", "Q5_K_M")),
        ("a/b:UD-Q4_K_XL@refs/pr/3", HubName("a/b", "UD-Q4_K_XL", "refs/pr/3")),
        ("a/b@v1.0", HubName("a/b", "", "v1.0")),
    ],
)
def test_names_are_read_and_written(text: str, name: HubName) -> None:
    assert parse_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected ORG/NAME"),
        ("gpt2", "expected ORG/NAME"),
        ("a/b/c", "expected ORG/NAME"),
        ("a/../b", "expected ORG/NAME"),
        ("../b", "expected ORG/NAME"),
        ("a/b--c", "expected ORG/NAME"),
        ("a/b@x..y", "expected ORG/NAME"),
        ("a/" + "b" * 96, "expected ORG/NAME"),
        ("a/b@main:Q4_K_M", "the revision goes last"),
        ("https://huggingface.co/a/b/tree/main", r"did you mean a/b\?"),
    ],
)
def test_what_is_no_name(text: str, words: str) -> None:
    with pytest.raises(BadName, match=words) as caught:
        parse_name(text)
    assert caught.value.exit_code == 2


def test_a_revision_is_given_once() -> None:
    assert with_revision(parse_name("a/b:Q8_0"), "v2") == HubName("a/b", "Q8_0", "v2")
    assert with_revision(parse_name("a/b@v2"), "v2").revision == "v2"
    assert with_revision(parse_name("a/b@v2"), None).revision == "v2"
    with pytest.raises(BadName, match="exclude each other"):
        with_revision(parse_name("a/b@v1"), "v2")
    with pytest.raises(BadName, match="exclude each other"):
        with_revision(parse_name("a/b@v1"), "main")
    with pytest.raises(BadName):
        with_revision(parse_name("a/b"), "v 2")


def test_the_main_branch_is_what_no_revision_means() -> None:
    assert parse_name("a/b@main") == with_revision(parse_name("a/b"), "main") == HubName("a/b")


def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert looks_like_hub_name("org/name:Q4_K_M")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not looks_like_hub_name("org/name")
    for text in (
        "demo",
        "models/some.gguf",
        "./org/name",
        "/org/name",
        "~/org/name",
        "org/weights.safetensors",
        "a b/c",
    ):
        assert not looks_like_hub_name(text), text


def test_the_public_name() -> None:
    assert public_name(parse_name("bartowski/Llama-3.2-1B-Instruct-GGUF:Q5_K_M")) == "Llama-3.2-1B-Instruct"
    assert public_name(parse_name("Qwen/Qwen3-0.6B")) == "Qwen3-0.6B"
    assert public_name(parse_name("org/model_gguf")) == "model"
