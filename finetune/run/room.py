"""Is there room on the disk for what a run writes? Asked before hours are spent."""

from __future__ import annotations

import shutil
from pathlib import Path

from backends.plan import size_words
from finetune.recipe.recipe import Recipe
from finetune.run.folder import FolderUnusable

CHECKPOINT_BYTES = 12
"""A trained parameter in one: itself and two states of AdamW, of 32 bits each."""
RESULT_BYTES = 12
"""A trained parameter in the adapter, the best one so far, and the export."""
OTHER_BYTES = 64 << 20


def needed_bytes(num_trainable: int, recipe: Recipe) -> int:
    """With the checkpoint that is being written while the oldest is still there."""
    return num_trainable * (CHECKPOINT_BYTES * (recipe.watch.max_checkpoints + 1) + RESULT_BYTES) + OTHER_BYTES


def require_room(num_trainable: int, recipe: Recipe, folder: Path) -> None:
    """Raises FolderUnusable."""
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    needed, free = needed_bytes(num_trainable, recipe), shutil.disk_usage(place).free
    if free < needed:
        raise FolderUnusable(
            f"the disk of {folder} has {size_words(free)} free, checkpoints and result need {size_words(needed)}: free some "
            "space, keep fewer with save_total_limit, or give --out DIR on another disk"
        )
