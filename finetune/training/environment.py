"""What is set before torch and its company are imported. Nothing is fetched, nothing is reported to anyone."""

from __future__ import annotations

import logging
import os

_QUIET = {
    # TRL counts its users over the network, and bitsandbytes looks for a kernel on the hub when it is imported.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare() -> None:
    """The user's own setting of anything but the network is kept."""
    for name, value in _QUIET.items():
        os.environ[name] = value if name.startswith("HF_HUB") else os.environ.get(name, value)


def silence() -> None:
    """Warnings of libraries about one another, which a user can do nothing about."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Not that a faster kernel for single tokens is not on the hub: training never calls it."""
    return "gemm_4bit_forward" not in str(record.msg)
