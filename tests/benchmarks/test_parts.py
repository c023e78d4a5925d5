"""A campaign that is broken off goes on with what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.adapter_program import Findings
from benchmarks.parts import Parts


def frame(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "test", "parts": dict(found)}


def findings(is_met: bool = True) -> Findings:
    found = Findings(measured={"value": 3})
    found.check("it holds", is_met, "seen")
    return found


def test_each_part_is_on_the_disk_as_soon_as_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    parts = Parts.read(path, frame)
    assert not parts.is_done("one")
    parts.keep("one", findings(), 1.25)
    parts.keep("two", findings(is_met=False), 0.1)
    written = json.loads(path.read_text())
    assert written["kind"] == "test"
    assert (written["parts"]["one"]["value"], written["parts"]["one"]["is_met"]) == (3, True)
    assert not written["parts"]["two"]["is_met"]
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


def test_a_later_call_knows_what_is_done_and_tries_again_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    first = Parts.read(path, frame)
    first.keep("one", findings(is_met=False), 1.0)
    first.keep_error("two", "the engine died", 1.0)
    later = Parts.read(path, frame)
    assert later.is_done("one")  # a condition that did not hold is a result, too
    assert not later.is_done("two")
    later.keep("two", findings(), 1.0)
    assert Parts.read(path, frame).is_done("two")


@pytest.mark.parametrize("content", ["{}", "[1]", "no json"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="holds no parts of a campaign"):
        Parts.read(path, frame)
    assert path.read_text() == content
