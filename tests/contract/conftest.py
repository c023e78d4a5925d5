"""The engines under contract, each started once for all that is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.engines import Running, running
from tests.contract.subjects import SUBJECTS, Subject
from tests.demo_adapters import demo_adapter_versions
from tests.vllm_environment import Starts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of an `engine` is asked of all; of a `model`, of those that have one."""
    if "engine" in metafunc.fixturenames:
        subjects = [subject for subject in SUBJECTS if subject.has_model or "model" not in metafunc.fixturenames]
        params = [pytest.param(subject, marks=subject.marks, id=subject.name) for subject in subjects]
        metafunc.parametrize("engine", params, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is asked of one engine in a row, so that each is started once."""
    at = [place for place, item in enumerate(items) if _subject(item) is not None]
    in_turn = sorted((items[place] for place in at), key=lambda item: SUBJECTS.index(_subject(item)))  # type: ignore[arg-type]
    for place, item in zip(at, in_turn, strict=True):
        items[place] = item


def _subject(item: pytest.Item) -> Subject | None:
    subject = (
        item.callspec.params.get("engine") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )
    return subject if isinstance(subject, Subject) else None


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where backends keep what they made and found out."""
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, kept: Path, vllm_starts: Starts) -> Iterator[Running]:
    subject: Subject = request.param
    with subject.build(kept, vllm_starts) as backend:
        with running(subject.name, backend, has_model=subject.has_model) as found:
            yield found


@pytest.fixture
def model(engine: Running) -> Running:
    """An engine whose answers are a model's, not made up."""
    return engine


@pytest.fixture(scope="session")
def adapter_versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return demo_adapter_versions(tmp_path_factory.mktemp("adapters"))
