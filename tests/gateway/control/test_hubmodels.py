"""Names of hubs in pools of vLLM: what is here already takes their place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.hub.access import Access
from backends.hub.errors import NoChoice
from backends.vllm.source import DEMO_DIR
from gateway.config import Config, Model, Pool
from gateway.configfile import parse
from gateway.control.hubmodels import HubModelFailed, HubModels
from gateway.home import Home

COMMIT = "c0ffee" + "0" * 34
OFFLINE = Access(is_offline=True)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo model as the hub's own tools keep it."""
    repository = tmp_path / "hf" / "hub" / "models--org--demo"
    folder = repository / "snapshots" / COMMIT
    shutil.copytree(DEMO_DIR, folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def models(home: Path, *pools: tuple[str, str]) -> HubModels:
    made = tuple(Pool(engine, model=model) for engine, model in pools)
    return HubModels(Config(models=(Model("demo", made),)), Home(home))


def paths(found: HubModels) -> list[str | None]:
    return [pool.model for pool in found.config.models[0].pools]


def test_what_the_hubs_own_tools_downloaded_is_served_by_vllm(cached: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with models(tmp_path / "home", ("vllm", "org/demo"), ("llamacpp", "org/demo")) as found:
        found.use_pulled(told.append)
        assert paths(found) == [str(cached), "org/demo"]
        assert [str(name) for name in found.missing] == ["org/demo"]  # for llama.cpp, which may take a GGUF
    assert told == ["org/demo: taken from the Hugging Face cache (commit c0ffee000000); no hub is asked"]


def test_vllm_asks_for_the_safetensors_model(cached: Path, tmp_path: Path) -> None:
    with models(tmp_path / "home", ("vllm", "org/other"), ("vllm", "demo"), ("vllm", "org/third:safetensors")) as found:
        found.use_pulled(print)
        assert [str(name) for name in found.missing] == ["org/other:safetensors", "org/third:safetensors"]
        with pytest.raises(HubModelFailed, match="no hub may be asked"):
            found.pull(Access(is_offline=True), is_json=True)


@pytest.mark.parametrize(
    "work", [lambda m: m.pull(OFFLINE, True), lambda m: m.preview(OFFLINE)], ids=["pull", "preview"]
)
def test_what_a_file_names_and_no_hub_gives_is_told_with_its_line(
    tmp_path: Path, work: Callable[[HubModels], object]
) -> None:
    pools = "  - {engine: llamacpp, model: org/none:Q4_K_M}\n" * 2
    with HubModels(parse(f"models:\n- name: a\n  pools:\n{pools}", "f.yaml"), Home(tmp_path)) as found:
        with pytest.raises(HubModelFailed, match=r"^f\.yaml:4: models\[0\]\.pools\[0\]: org/none:Q4_K_M: no such file"):
            work(found)


def test_a_quantisation_is_for_llamacpp(tmp_path: Path) -> None:
    with models(tmp_path / "home", ("vllm", "org/demo:Q4_K_M")) as found:
        with pytest.raises(NoChoice, match=r"org/demo:Q4_K_M: a GGUF is for engine llamacpp; for vLLM write org/demo"):
            found.use_pulled(print)


def test_a_name_may_have_a_revision(cached: Path, tmp_path: Path) -> None:
    (cached.parents[1] / "refs" / "main").unlink()
    with models(tmp_path / "home", ("vllm", f"org/demo@{COMMIT}"), ("vllm", "org/demo")) as found:
        found.use_pulled(print)
        assert paths(found) == [str(cached), "org/demo"]
