"""The README is true: its made blocks are what is made now, its commands and its SDK snippet run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.processes import Served
from tests.readme import README, ROOT, num_blocks, rendered

TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_made_blocks_are_up_to_date() -> None:
    assert num_blocks(TEXT) == 6
    assert rendered(TEXT) == TEXT, "run: python -m tests.readme --write"


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_command_named_exists() -> None:
    names = set(re.findall(r"forgegate (\w+)", "\n".join(blocks("bash") + re.findall(r"`(forgegate [^`]+)`", TEXT))))
    assert {"serve", "chat", "doctor", "bench"} <= names
    for name in names:
        done = subprocess.run([sys.executable, "-m", "gateway", name, "--help"], capture_output=True, cwd=ROOT)
        assert done.returncode == 0, name


def test_the_configuration_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway import configfile

    (shown,) = blocks("yaml")
    assert yaml.safe_load(shown)["models"]
    path = tmp_path / "forgegate.yaml"
    path.write_text(shown, encoding="utf-8")
    monkeypatch.setenv("UPSTREAM_KEY", "x")
    monkeypatch.setenv("APP_KEY", "a-key-of-my-app")
    assert len(configfile.load(path).models) == 2


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.engine
def test_the_curl_and_the_sdk_snippets_run(tmp_path: Path) -> None:
    curl = next(block for block in blocks("bash") if block.startswith("curl"))
    snippets = blocks("python")
    assert len(snippets) == 2
    with Served(tmp_path / "home", "--port", "0", "--admin-port", "0") as served:
        served.wait_ready()
        address = served.url.removesuffix("/v1")
        done = subprocess.run(
            ["bash", "-c", curl.replace("http://127.0.0.1:8080", address)], capture_output=True, text=True, timeout=60
        )
        assert "KV cache" in done.stdout, done.stderr
        for snippet in snippets:
            said = subprocess.run(
                [sys.executable, "-c", snippet.replace("http://127.0.0.1:8080", address)],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert said.stderr == ""
            assert said.stdout.strip()
