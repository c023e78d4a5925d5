"""Which file the answers of a gateway's versions are kept in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from finetune.running import Gateway
from finetune.sharedanswers import FOLDER, MOST_FILES, shared_answers
from tests.finetune.verdicts import suite

GATEWAY = Gateway("http://gateway", "http://admin", "token")
ENGINE = {
    "id": "demo-0", "model": "demo", "kind": "llamacpp", "description": "llama.cpp, demo", "url": "http://127.0.0.1:4711", "pid": 17,
    "state": "ready", "num_restarts": 0, "uptime_s": 1.0,
}  # fmt: skip
OTHER = {**ENGINE, "id": "demo-1", "url": "http://127.0.0.1:4712", "pid": 18}


class Admin:
    """Tells of these engines."""

    def __init__(self, *told: dict[str, Any]) -> None:
        self.told = told

    def engines(self) -> list[dict[str, Any]]:
        return list(self.told)


def file_of(home: Path, *engines: dict[str, Any], asked: Any = None, gateway: Gateway = GATEWAY) -> Path | None:
    return shared_answers(Admin(*engines), gateway, "demo", asked or suite(), {"FORGEGATE_HOME": str(home)})  # type: ignore[arg-type]


def test_it_is_the_same_as_long_as_the_engines_run(tmp_path: Path) -> None:
    found = file_of(tmp_path, ENGINE, OTHER)
    assert found is not None
    assert found.parent == tmp_path / FOLDER
    later = {**ENGINE, "uptime_s": 60.0, "state": "asleep"}
    assert file_of(tmp_path, OTHER, later) == found
    assert file_of(tmp_path, ENGINE, OTHER, {**ENGINE, "model": "another", "pid": 19}) == found


def test_what_may_answer_otherwise_has_another(tmp_path: Path) -> None:
    files = {
        file_of(tmp_path, ENGINE),
        file_of(tmp_path, ENGINE, OTHER),
        file_of(tmp_path, {**ENGINE, "pid": 99}),
        file_of(tmp_path, {**ENGINE, "url": "http://127.0.0.1:5000"}),
        file_of(tmp_path, {**ENGINE, "description": "llama.cpp, demo Q4_K_M"}),
        file_of(tmp_path, ENGINE, gateway=Gateway("http://gateway", "http://elsewhere", "token")),
    }
    assert len(files) == 6
    assert None not in files


def test_engines_that_nobody_here_started_are_not_known_again(tmp_path: Path) -> None:
    assert file_of(tmp_path) is None
    assert file_of(tmp_path, ENGINE, {**OTHER, "pid": None}) is None


def test_a_home_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("")
    assert file_of(tmp_path, ENGINE) is None


def test_old_ones_go(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    for number in range(MOST_FILES + 3):
        path = tmp_path / FOLDER / f"{number}.jsonl"
        path.write_text("")
        os.utime(path, (number, number))
    own = file_of(tmp_path, ENGINE)
    assert own is not None
    own.write_text("")
    left = {path.stem for path in (tmp_path / FOLDER).iterdir()} - {own.stem}
    assert left == {str(number) for number in range(4, MOST_FILES + 3)}
    assert file_of(tmp_path, ENGINE) == own
    assert own.exists()
