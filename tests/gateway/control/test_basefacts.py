"""What adapters of a model must fit, as its pools are configured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import Identity, Places, PoolSpec
from backends.errors import ModelUnusable
from backends.registry import build
from backends.vllm.options import LINEAR_MODULES
from gateway import errors
from gateway.config import Model, Pool
from gateway.control.basefacts import Bases

KNOWN = [Identity("sha256:" + "ab" * 32, is_source=True)]


def bases(tmp_path: Path, *pools: tuple[str, dict[str, Any]]) -> Bases:
    places = Places(tmp_path / "models", tmp_path / "envs")
    made = [Pool(engine, model="demo", options=options) for engine, options in pools]
    model = Model("demo", tuple(made))
    return Bases(
        [
            (model, pool, build(PoolSpec(pool.engine, "demo", model="demo", options=pool.options), places))
            for pool in made
        ]
    )


def test_all_vllm_pools_must_take_an_adapter(tmp_path: Path) -> None:
    found = bases(
        tmp_path,
        ("llamacpp", {"max_adapters": 2}),
        ("vllm", {"lora": {"max_rank": 64, "target_modules": ["q_proj", "v_proj"]}}),
        ("vllm", {"lora": {"max_rank": 16}}),
    ).facts("demo", KNOWN)
    assert found.engines == ("llamacpp", "vllm")
    told = json.loads(found.to_json())
    assert told["vllm"] == {"max_rank": 16, "target_modules": ["q_proj", "v_proj"]}


def test_both_kinds_of_engines_name_the_same_template_and_weights(tmp_path: Path) -> None:
    """So that a version is the same for both."""
    ours = bases(tmp_path, ("vllm", {"lora": {}})).facts("demo", KNOWN)
    theirs = bases(tmp_path, ("llamacpp", {"max_adapters": 2})).facts("demo", KNOWN)
    assert ours.template_digest == theirs.template_digest
    assert (ours.folder, ours.source_digest) == (theirs.folder, theirs.source_digest)
    assert theirs.vllm is None
    assert ours.vllm is not None
    assert ours.vllm.target_modules == LINEAR_MODULES


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_a_pools_own_template_is_what_an_adapter_is_made_for(tmp_path: Path, engine: str) -> None:
    template = tmp_path / "short.jinja"
    template.write_text("{{ messages[-1].content }}")
    takes: dict[str, Any] = {"lora": {}} if engine == "vllm" else {"max_adapters": 2}
    plain = bases(tmp_path, (engine, takes)).facts("demo", KNOWN)
    other = bases(tmp_path, (engine, {**takes, "chat_template": str(template)})).facts("demo", KNOWN)
    assert (
        other.template_digest == f"sha256:{hashlib.sha256(template.read_bytes()).hexdigest()}" != plain.template_digest
    )


def test_pools_with_different_templates_take_no_adapter(tmp_path: Path) -> None:
    template = tmp_path / "short.jinja"
    template.write_text("{{ messages[-1].content }}")
    ours = ("vllm", {"lora": {}, "chat_template": str(template)})
    with pytest.raises(ModelUnusable, match="the pools of demo have different chat templates"):
        bases(tmp_path, ours, ("llamacpp", {"max_adapters": 2})).facts("demo", KNOWN)
    theirs = ("llamacpp", {"max_adapters": 2, "chat_template": str(template)})
    assert bases(tmp_path, ours, theirs).facts("demo", KNOWN).template_digest
    made = bases(tmp_path, ours)
    template.unlink()
    with pytest.raises(ModelUnusable, match=r"short\.jinja cannot be read"):
        made.facts("demo", KNOWN)


def test_a_vllm_pool_without_lora_takes_none_and_it_is_said_what_would(tmp_path: Path) -> None:
    with pytest.raises(errors.BadRequest, match=r"or a vllm pool with `lora: \{\}` among its options"):
        bases(tmp_path, ("vllm", {})).model_of("")
