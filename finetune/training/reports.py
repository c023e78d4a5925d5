"""wandb and TensorBoard, where the recipe asks for them; nothing is sent anywhere else."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Iterable, Mapping

from finetune.errors import LacksPackage, RecipeUnusable

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
_WANDB = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "run_id": "WANDB_RUN_ID",
    "mode": "WANDB_MODE",
}


def variables(report_to: Iterable[str], wandb: Mapping[str, str], run: str) -> dict[str, str]:
    """What they are told through the environment. Weights and code are never uploaded."""
    found = {"TENSORBOARD_LOGGING_DIR": f"{run}/tensorboard"} if "tensorboard" in report_to else {}
    if "wandb" not in report_to:
        return found
    own = {_WANDB[key]: value for key, value in wandb.items() if value and key in _WANDB}
    fixed = {"WANDB_DIR": run, "WANDB_LOG_MODEL": "false", "WANDB_WATCH": "false", "WANDB_DISABLE_CODE": "true"}
    return {**found, **own, **fixed}


def require(report_to: Iterable[str], environment: Mapping[str, str] = os.environ) -> None:
    """To be called with the variables set. Raises LacksPackage; RecipeUnusable where wandb would stop and ask for a key."""
    for name in report_to:
        if not any(importlib.util.find_spec(package) for package in PACKAGES.get(name, (name,))):
            raise LacksPackage(
                f"report_to: {name} is not installed in the trainer's environment: pip install {name} there"
            )
    if "wandb" in report_to and not _has_wandb_key(environment):
        raise RecipeUnusable(
            "report_to: wandb has no key here and would ask for one: run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"
        )


def _has_wandb_key(environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_MODE") in ("offline", "disabled"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
