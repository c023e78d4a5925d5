"""What is trained: the shipped recipe of the demo model, and what each setting changes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

GENERAL = "{general}"
"""Stands for the file of general rows."""
ATTENTION = "[q_proj, k_proj, v_proj, o_proj]"


def _replayed(share: str, **changes: str) -> Mapping[str, str]:
    return {"general.path": GENERAL, "general.share": share, **changes}


def _held(strength: str) -> Mapping[str, str]:
    return {"ewc_lambda": strength, "ewc.path": GENERAL}


SETTINGS: Mapping[str, Mapping[str, str]] = {
    "shipped": {},
    "replay-20": _replayed("0.2"),
    "rate-2e-3": {"learning_rate": "2e-3"},
    "replay-20-rate-2e-3": _replayed("0.2", learning_rate="2e-3"),
    "replay-20-rate-1e-3": _replayed("0.2", learning_rate="1e-3"),
    "replay-20-rate-2e-3-ewc-0.1": {**_replayed("0.2", learning_rate="2e-3"), **_held("0.1")},
    "replay-30-rate-2e-3": _replayed("0.3", learning_rate="2e-3"),
    "one-epoch": {"num_epochs": "1"},
    "rate-1e-3": {"learning_rate": "1e-3"},
    "rate-3e-4": {"learning_rate": "3e-4"},
    "rank-4": {"lora_r": "4", "lora_alpha": "8"},
    "attention-only": {"lora_target_linear": "false", "lora_target_modules": ATTENTION},
    "alpha-8": {"lora_alpha": "8"},
    "ewc-0.01": _held("0.01"),
    "ewc-0.1": _held("0.1"),
    "ewc-1": _held("1"),
    "ewc-10": _held("10"),
}
"""In the order in which they are measured: what matters most comes first. The shipped recipe has no replay, and forgets."""
