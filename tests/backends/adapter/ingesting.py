"""Runs the ingest in this process and gives back what it told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.adapter import ingest


@dataclass(frozen=True, slots=True)
class Told:
    code: int
    events: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]


@dataclass(frozen=True, slots=True)
class Ingester:
    """`store` is the folder of versions."""

    base: Path
    store: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, upload: Path | str, *more: str, engines: str = "llamacpp,vllm") -> Told:
        paths = ["--upload", str(upload), "--store", str(self.store), "--base", str(self.base)]
        self.capsys.readouterr()
        code = ingest.main([*paths, "--engines", engines, *more])
        return Told(code, [json.loads(line) for line in self.capsys.readouterr().out.splitlines()])

    def left(self) -> list[str]:
        """All that lies in the store."""
        return sorted(str(path.relative_to(self.store)) for path in self.store.rglob("*"))


def whole(digest: str) -> list[str]:
    """What the store holds with this one version."""
    names = ("adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "manifest.json")
    return [digest, *(f"{digest}/{name}" for name in names)]
