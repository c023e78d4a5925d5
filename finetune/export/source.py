"""What a user names: a run's folder or an adapter's, and the full-precision base that belongs to it. Reads, never writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.adapter.upload import CONFIG, WEIGHTS
from backends.modelfolder import read_optional_json
from finetune.errors import RecipeUnusable
from finetune.recipe.base import find_base
from finetune.recipe.folders import Folders
from finetune.recipe.values import Unfit

ADAPTER, EXPORT, ATTEMPTS = "adapter", "export", "attempts"
"""Of a run's folder: what it trained, the same as it is published, and the recipes that its attempts were told."""
_QUANTISED = {
    "bitsandbytes": "bitsandbytes", "awq": "AWQ", "gptq": "GPTQ", "fp8": "FP8", "compressed-tensors": "compressed-tensors",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """`adapter` in PEFT's format, `base` a model folder of full precision."""

    adapter: Path
    base: Path
    run: Path | None = None


def find(named: Path, base: Path | None) -> Source:
    """Raises RecipeUnusable, which says what was looked for."""
    run = named if (named / ATTEMPTS).is_dir() or (named / ADAPTER).is_dir() else None
    adapter = run / ADAPTER if run else named
    if missing := [name for name in (CONFIG, WEIGHTS) if not (adapter / name).is_file()]:
        raise RecipeUnusable(_lacking(named, adapter, run, missing))
    found = resolve_base(base) if base else _base_of(adapter, run or _run_around(named))
    if found is None:
        raise RecipeUnusable(f"{named} does not say on which base it was trained: name its folder with --base")
    require_full_precision(found)
    return Source(adapter, found, run)


def _run_around(adapter: Path) -> Path | None:
    """The run that has exported it; None where there is none. What is canonical does not name its base itself."""
    folder = adapter.absolute()
    return folder.parent if folder.name == EXPORT and (folder.parent / ATTEMPTS).is_dir() else None


def resolve_base(base: Path | str) -> Path:
    """A folder, `demo`, or what was pulled from a hub by its name there. Raises RecipeUnusable for what is no model."""
    folder = Path(base)
    if folder.is_file():
        raise RecipeUnusable(
            f"{folder} is a file: --base takes the model's folder as it came from the hub, with config.json and *.safetensors"
        )
    if not folder.is_dir():
        try:
            return find_base(str(base), "", Folders.of(folder), needs_weights=True).folder
        except Unfit as exc:
            raise RecipeUnusable(str(exc)) from exc
    if not (folder / "config.json").is_file():
        raise RecipeUnusable(
            f"{folder}: there is no model in this folder (no config.json); a hub's model is fetched first: forgegate models pull ID"
        )
    return folder


def require_full_precision(base: Path) -> None:
    """Raises RecipeUnusable with the reason."""
    config = read_optional_json(base / "config.json")
    quantised: Any = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    if not quantised:
        return
    method = str(quantised.get("quant_method", "")) if isinstance(quantised, dict) else ""
    raise RecipeUnusable(
        f"{base} is quantised ({_QUANTISED.get(method, method) or 'as its config.json says'}): its weights are rounded far more coarsely "
        "than what an adapter changes, so that a merge onto them would lose it, and references would be of another model. Name the "
        "full-precision model with --base; quantise what is merged afterwards: forgegate quantize"
    )


def recipe_of(run: Path) -> dict[str, Any] | None:
    """The recipe that the run's last attempt was told, as plain values; None where there is none."""
    numbered = [path for path in (run / ATTEMPTS).glob("*.json") if path.stem.isdecimal()]
    if not numbered:
        return None
    try:
        content = json.loads(max(numbered, key=lambda path: int(path.stem)).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _base_of(adapter: Path, run: Path | None) -> Path | None:
    """As the run's recipe says it, else the adapter's own configuration. Raises RecipeUnusable where it is not here."""
    told = (recipe_of(run) or {}).get("base") if run else None
    told = told or read_optional_json(adapter / CONFIG).get("base_model_name_or_path")
    if not isinstance(told, str) or not told:
        return None
    try:
        return resolve_base(told)
    except RecipeUnusable as exc:
        raise RecipeUnusable(
            f"{adapter} was trained on {told}, which is not here: name it with --base ({exc})"
        ) from exc


def _lacking(named: Path, adapter: Path, run: Path | None, missing: list[str]) -> str:
    if not named.exists():
        return f"{named}: no such folder"
    if run:
        return f"{named} has no trained adapter yet ({adapter / missing[0]} is missing): let the run end first"
    return f"{named} is neither a run's folder nor an adapter's: it has no {' and no '.join(missing)}"
