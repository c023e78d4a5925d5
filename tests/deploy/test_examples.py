"""Every example configuration is one that `forgegate serve` accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.configfile import load

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "deploy/examples").glob("*.yaml"))
# What an example leaves to the environment.
ENVIRONMENT = {"UPSTREAM_API_KEY": "upstream", "TEAM_A_KEY": "a" * 32, "TEAM_B_KEY": "b" * 32}


def test_the_examples_are_found() -> None:
    assert [path.name for path in EXAMPLES] == ["api-keys.yaml", "llamacpp.yaml", "replicas-and-remote.yaml"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid(path: Path) -> None:
    assert load(path, ENVIRONMENT).models
