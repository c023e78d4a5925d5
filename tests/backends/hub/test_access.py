from __future__ import annotations

from pathlib import Path

import pytest

from backends.hub.access import ENDPOINT, Access
from backends.hub.errors import HubError


def test_nothing_set(tmp_path: Path) -> None:
    assert Access.from_env({"HF_HOME": str(tmp_path)}) == Access(ENDPOINT, "", "", False)


def test_the_token_is_found_as_the_official_client_does(tmp_path: Path) -> None:
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text("hf_file\n")
    by_file = Access.from_env({"XDG_CACHE_HOME": str(tmp_path)})
    assert (by_file.token, by_file.token_source) == ("hf_file", str(tmp_path / "huggingface" / "token"))
    assert Access.from_env({"HF_HOME": str(tmp_path / "huggingface")}).token == "hf_file"
    (tmp_path / "other").write_text("hf_other")
    assert Access.from_env({"HF_TOKEN_PATH": str(tmp_path / "other")}).token == "hf_other"
    by_variable = Access.from_env({"XDG_CACHE_HOME": str(tmp_path), "HF_TOKEN": " hf_env\n"})
    assert (by_variable.token, by_variable.token_source) == ("hf_env", "HF_TOKEN")
    assert "hf_env" not in repr(by_variable)
    assert Access.from_env({"XDG_CACHE_HOME": str(tmp_path), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).token == ""


def test_endpoint_and_offline(tmp_path: Path) -> None:
    access = Access.from_env({"HF_HOME": str(tmp_path), "HF_ENDPOINT": "https://hub.example/", "HF_HUB_OFFLINE": "yes"})
    assert (access.endpoint, access.is_offline) == ("https://hub.example", True)


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "https://", "http://h:port", "http://[h"])
def test_an_endpoint_that_is_no_url(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"HF_ENDPOINT=.*expected"):
        Access.from_env({"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint})


@pytest.mark.parametrize(
    "endpoint",
    ["https://me:s3cret@hub.example", "https://s3cret@hub.example", "me:s3cret@hub.example", "ftp://me:s3cret@h"],
)
def test_an_endpoint_with_a_password(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"HF_ENDPOINT holds a user's name or password.*HF_TOKEN") as caught:
        Access.from_env({"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint})
    assert "s3cret" not in str(caught.value)


def test_a_token_that_cannot_be_one(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="HF_TOKEN holds something that is no token"):
        Access.from_env({"HF_HOME": str(tmp_path), "HF_TOKEN": "tök€n"})
