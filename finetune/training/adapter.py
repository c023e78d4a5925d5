"""A trained adapter as PEFT's folder, whole or absent, with the digest of the base that it belongs to."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from backends.adapter.lint import BASE_DIGEST_KEY
from backends.adapter.sealed import put_folder

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def write_adapter(model: Any, out: Path, base_digest: str) -> None:
    """What stood at `out` is there until the new one is whole."""
    partial = out.with_name(f".{out.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_files(model, partial, {BASE_DIGEST_KEY: base_digest})
    put_folder(partial, out)


def write_files(model: Any, folder: Path, metadata: Mapping[str, str]) -> None:
    """The weights in float32, as they were trained."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt", **metadata})
    (folder / CONFIG).write_text(_config_text(model), encoding="utf-8")


def copy_adapter(source: Path, out: Path) -> None:
    partial = out.with_name(f".{out.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    put_folder(partial, out)


def _config_text(model: Any) -> str:
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode = True
    content = config.to_dict()
    content["target_modules"] = sorted(content["target_modules"])  # a set, whose order would differ from run to run
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
