"""What the two supported versions said of themselves, recorded from their own parser and their own metrics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from backends.vllm.inside.survey import MARK
from backends.vllm.installed import Installed, read_survey

PAGES = Path(__file__).parent / "pages"
VERSIONS = ("0.26", "0.32")


def survey(version: str) -> str:
    """A child's output, with a line of vLLM's log before it."""
    content = (PAGES / f"flags-{version}.json").read_text()
    return f"INFO 11-30 00:34:25 [importing.py:88] Triton not installed\n{MARK}{' '.join(content.split())}\n"


def installed(version: str = "0.32", device: str = "cuda", modules: tuple[str, ...] = ()) -> Installed:
    """The same parser on another device."""
    return dataclasses.replace(read_survey(survey(version)), device=device, modules=modules)


def metrics_page(version: str) -> str:
    return (PAGES / f"metrics-{version}.txt").read_text()
